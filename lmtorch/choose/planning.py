"""What "auto" chooses for a problem of some shape, and why.

The rule, with the measurements behind it, is in docs/choices.md.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import torch

from .. import _memory
from .._errors import InputError
from ..core.method import Method
from ..core.termination import Tolerances
from ..damping.base import Damping
from ..damping.geodesic import Geodesic
from ..damping.nielsen import Nielsen
from ..damping.scaling import Levenberg, More, Scaling
from ..damping.trust_region import TrustRegion
from ..linearizations.layered import LayeredForm
from ..linearizations.products import ProductsForm
from ..linearizations.scattered import ScatteredForm
from ..solvers.base import Solver
from ..solvers.dual import Dual
from ..solvers.svd import SVD
from .alternatives import alternatives
from .derivations import black_box, by_products, chunks, differences, slope_error, sources
from .facts import Derivation, Facts, Plan
from .members import DAMPINGS, SCALINGS
from .options import POLISH, SMALL, Options
from .precision import arithmetic, mixed
from .solving import (
    SAMPLED_ROWS,
    check_memory,
    many,
    of_layers,
    sent,
    solver_of,
    takes_products,
    written,
)

PATIENCE = 1e-3  # share of the cost that 32 trials must gain, or else other ways are tried
MOMENTUM = 0.7  # of the last step, where data that change leave directions open
SAMPLED_SHARE = 0.1  # share of the rows that is sampled at first
SAMPLED_LEAST = 1.5  # rows per parameter in the sample, at least
SAMPLED_ENOUGH = 1000  # rows in the sample that steps by products need at least
MIXED_LEAST = 256  # rows that mix those of a criterion's samples, at least
MIXED_ENOUGH = 512  # of them, where a tenth of the samples are no more
DUAL_LEAST = 256  # rows in the sample of which the m x m equations are made, at least
DUAL_ENOUGH = 1024  # rows of several terms from which they are made of a sample at first
# λ₀ of steps by products on a table, as a share of the largest diagonal entry: with Nielsen's 1e-3
# the first step of a network is refused once or twice
FIRST_OF_PRODUCTS = 5e-3
# and of classes, whose networks refuse two to five first steps from 1e-3, and begin at even shares
FIRST_OF_CLASSES = 0.2
DEFAULT_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-6}
# of the cost, where no exact Hessian is looked at: slow steps have to be followed to round-off
UNSEEN_TOLERANCE = {torch.float32: torch.finfo(torch.float32).eps}
COARSE_TOLERANCE = 1e-3  # that of other dtypes, a few units of round-off


def plan(terms: Sequence[Facts], options: Options) -> Plan:
    """Decide how to solve a problem of this shape, of one term or several.

    The plan of a small problem whose options are names and numbers is remembered.

    Returns:
        The method, for each term the sources of derivatives and how its samples stream, and the
        reasons.

    Raises:
        InputError: the choice does not fit the memory, or the closure.
    """
    small = all(_modest(term) for term in terms)
    return (_known if small and options.plain else _decide)(tuple(terms), options)


def _modest(facts: Facts) -> bool:
    """Whether its plan depends on no memory that is free, and has no sources with a memory."""
    touched = facts.residuals * facts.dtype.itemsize + facts.activations
    count = facts.parameters + facts.residuals
    one = facts.samples is None and facts.leading is None
    return one and 4 * touched * count <= _memory.MODEST


def _decide(terms: Sequence[Facts], options: Options) -> Plan:
    """The plan, as `plan` has it."""
    facts = _together(terms)
    n, m = facts.parameters, facts.residuals
    small = n <= SMALL
    dtype, why = arithmetic(facts, options)
    reasons = [
        ("problem", f"n = {n}, m = {m}", _size(facts)),
        ("linear algebra", str(dtype).removeprefix("torch."), why),
    ]

    solver, why = solver_of(facts, options, small, dtype)
    if options.precision == "mixed":
        solver = mixed(solver)
    products = takes_products(solver, options)
    if isinstance(solver, Dual):
        share, why_share = _share_of_dual(facts, options, len(terms) > 1)
    else:
        share, why_share = _share(facts, options, solver, small or len(terms) > 1)
    derivations, of_derivations = _derivations(terms, options, dtype, products, share)
    if facts.streams and options.acceleration is True:
        raise InputError(
            "acceleration=True takes the bend of every residual along a step, which are as many as "
            "there are samples, and nothing of a loader's batches is kept. Leave it out, or pass "
            "the data as step(closure, *batch)."
        )
    # rows that are kept are those that bends are taken of
    bent = (share is None or isinstance(solver, Dual)) and not facts.streams
    damping, scaling, why_damping = _damping(facts, options, solver, bent)
    if isinstance(solver, Dual) and options.solver in ("auto", "dual"):
        if facts.processes > 1:
            solver, why = Dual(ScatteredForm()), f"{why}, rows where they are made"
        solver, why = of_layers(solver, scaling, derivations, why)
    if isinstance(solver.form, LayeredForm) and not isinstance(scaling, Levenberg):
        raise InputError(
            "the factors of layers need a D that is one number in each parameter: with LayeredForm "
            "choose scaling='levenberg', or another form."
        )
    reasons.append(("solver", repr(solver), why))
    why = why_damping
    reasons += [("damping", repr(damping), why), ("scaling", repr(scaling), why)]
    method = _method(facts, options, solver, damping, scaling, share)
    if options.momentum is not None:
        momentum, steady, why = _momentum(facts, options)
        method = replace(method, momentum=momentum, steady=steady)
        reasons.append(("momentum", f"{momentum:g} of the last step" if momentum else "none", why))
    reasons.append(("certificate", *_why_certify(options, method, small)))
    reasons += of_derivations
    mixes = share is not None and _mixes(facts, options, solver)
    rows_taken = "all rows" if share is None else f"{share:.0%} of the samples at first"
    if mixes:
        rows_taken = f"{share:.1%} of the rows at first, mixed by random signs"
    reasons.append(("curvature", rows_taken, why_share))
    if facts.streams:
        reasons.append(
            ("passes over a loader", _passes(share, products), "nothing is kept of them")
        )
    if facts.processes > 1:
        reasons.append(("processes", str(facts.processes), sent(solver.form, n, m)))
    kept = products or facts.streams
    check_memory(facts, options, solver.form if kept else written(solver), dtype)
    # where samples stream, residuals are not kept but evaluated again: they grow with the samples
    streams = facts.streams or any(
        t.samples and d.chunk < t.samples for t, d in zip(terms, derivations, strict=True)
    )
    keep = getattr(damping, "bends", False) and (m < n or not streams)
    return Plan(
        method,
        alternatives(method, options, small),
        derivations,
        dtype,
        share,
        not small,
        keep,
        tuple(reasons),
        mixes,
    )


_known = lru_cache(maxsize=64)(_decide)


def _derivations(
    terms: Sequence[Facts],
    options: Options,
    dtype: torch.dtype,
    products: bool,
    share: float | None,
) -> tuple[tuple[Derivation, ...], list[tuple[str, str, str]]]:
    """Where the rows of each term come from, and the reasons."""
    derivations, reasons = [], []
    for place, term in enumerate(terms, 1):
        of = f" {place}" if len(terms) > 1 else ""
        chunk, rows, why_chunk = chunks(term, options.jacobian, options.memory_limit, dtype)
        if products:
            rungs, why = by_products(term, options.memory_limit, share)
            why_chunk = why_chunk.split(";")[0]
        else:
            rungs, why = sources(term, options.jacobian, options.memory_limit, chunk, rows)
        derivations.append(Derivation(rungs, chunk))
        reasons.append((f"jacobian{of}", repr(rungs[0]), why))
        if term.samples is not None:
            reasons.append((f"chunk{of}", f"{chunk} of {term.samples} samples", why_chunk))
    return tuple(derivations), reasons


def _method(
    facts: Facts,
    options: Options,
    solver: Solver,
    damping: Damping,
    scaling: Scaling,
    share: float | None,
) -> Method:
    """The combination of choices, with the tolerances, and with how its end is looked at."""
    careful = SVD() if many(facts, options) else None
    undamped = careful is not None or getattr(solver, "exact_at_zero", False)
    small = facts.parameters <= SMALL
    polish = options.polish
    if polish is None:  # a step of it is a pass over a loader
        polish = POLISH if small and undamped and not facts.streams else 0
    # a black box may be slow, and its user has said by the tolerances what is worth an evaluation
    frugal = black_box(options.jacobian) and not options.polish
    certify = facts.parameters <= options.certified and share is None and not facts.streams
    return Method(
        solver,
        damping,
        scaling,
        _tolerances(facts, options, certify and small),
        polish,
        certify,
        not certify and facts.samples is None and isinstance(solver.form, ProductsForm),
        PATIENCE if certify else 0.0,
        slopes=slope_error(options.jacobian, facts.precision or facts.dtype),
        frugal=frugal and undamped,
        careful=careful,
    )


def _tolerances(facts: Facts, options: Options, exact: bool) -> Tolerances:
    """The tolerances asked for, and where none is, as much as the dtype and derivatives resolve.

    Args:
        facts: the shape of the problem.
        options: what was asked for.
        exact: whether the exact Hessian is looked at where a run ends.
    """
    precision = facts.precision or facts.dtype
    tolerance = DEFAULT_TOLERANCE.get(precision, COARSE_TOLERANCE)
    known = tolerance
    if differences(options.jacobian) == "2-point":
        # the derivatives are known to half of the digits
        known = max(tolerance, torch.finfo(precision).eps ** 0.5)
    # the cost keeps its tolerance: it falls with the square of what the derivatives promise
    of_cost = tolerance if exact else UNSEEN_TOLERANCE.get(precision, tolerance)
    defaults = (of_cost, known, known)
    asked = (options.ftol, options.xtol, options.gtol)
    pairs = zip(asked, defaults, strict=True)
    return Tolerances(*(default if given is None else given for given, default in pairs))


def _why_certify(options: Options, method: Method, small: bool) -> tuple[str, str]:
    """Whether the end of a run is looked at, and how."""
    if method.asks:
        return "a step without damping", (
            f"n > {options.certified}: what conjugate gradients still find; not whether the cost "
            "curves downward, nor which parameters have an influence"
        )
    if not method.certify:
        return "none", f"n > {options.certified}, a loader, or the curvature is sampled"
    what = "exact Hessian" if small else "J alone"
    return what, "what an undamped model still promises, saddles, parameters without influence"


def _together(terms: Sequence[Facts]) -> Facts:
    """The facts of all terms as those of one."""
    counts = [term.samples for term in terms]
    return terms[0]._replace(
        residuals=sum(term.residuals for term in terms),
        samples=None if None in counts else sum(count or 0 for count in counts),
        activations=max(term.activations for term in terms),
        streams=any(term.streams for term in terms),
        layers=len(terms) == 1 and terms[0].layers,
        outputs=terms[0].outputs if len(terms) == 1 else 1,
    )


def _size(facts: Facts) -> str:
    kind = (
        "no structure is known" if facts.samples is None else f"{facts.samples} independent samples"
    )
    each = "in an evaluation" if facts.samples is None else "by each"
    return f"{kind}; {facts.activations / 2**10:.3g} KiB touched {each}"


def _damping(
    facts: Facts, options: Options, solver: Solver, bent: bool
) -> tuple[Damping, Scaling, str]:
    """How far a step goes, in which units; `bent`: whether bends from all rows may correct it."""
    small = facts.parameters <= SMALL
    why = f"n {'<=' if small else '>'} {SMALL}"
    # a region is found by several solutions, and an acceleration takes one more: by products each
    # costs as much as the step
    products = isinstance(solver.form, ProductsForm)
    damping, scaling, accelerated = options.damping, options.scaling, options.acceleration
    # along a sampled JᵀJ a bend from all rows would cost more than the step
    if accelerated == "auto":
        accelerated = damping == "auto" and not (small or products) and bent
    if damping == "auto":
        first = FIRST_OF_PRODUCTS if facts.outputs == 1 else FIRST_OF_CLASSES
        own = Nielsen(first) if products and facts.samples is not None else Nielsen()
        damping = TrustRegion() if small and not products else own
    elif isinstance(damping, str):
        damping = DAMPINGS[damping]
    if isinstance(scaling, str):
        scaling = SCALINGS[scaling] if scaling != "auto" else More() if small else Levenberg()
    if accelerated:
        damping = Geodesic(damping)
    return damping, scaling, why if "auto" in (options.damping, options.scaling) else "given"


def _momentum(facts: Facts, options: Options) -> tuple[float, bool, str]:
    """The share of the last step that one begins with, whether also on the same data, and why."""
    n, m = facts.parameters, facts.residuals
    if options.momentum != "auto":
        return float(options.momentum or 0.0), True, "given"
    if m >= n:
        return 0.0, False, "m >= n: in the end steps without are nearer to the solution"
    if facts.outputs > 1:
        return 0.0, False, "outputs of a criterion: other images say other things"
    why = "m < n: where the loss shows that the data are not those of the last step"
    return MOMENTUM, False, why


def _mixes(facts: Facts, options: Options, solver: Solver) -> bool:
    """Whether the rows of a criterion's samples are mixed: where products of them are taken.

    Few parameters are worth all rows, unless a sample is asked for.
    """
    here = facts.samples is not None and facts.residuals > facts.samples and not facts.streams
    wanted = facts.parameters > SMALL or options.curvature == "sampled"
    return here and wanted and facts.outputs > 1 and isinstance(solver.form, ProductsForm)


def _share(facts: Facts, options: Options, solver: Solver, small: bool) -> tuple[float | None, str]:
    n, m = facts.parameters, facts.residuals
    possible = facts.samples is not None and solver.form.sampled
    if options.curvature == "sampled" and not possible:
        raise InputError(
            "curvature='sampled' needs samples, step(closure, *batch), and the normal "
            "equations, solver='cholesky', or their products, solver='cg'."
        )
    if options.curvature == "full" or not possible or facts.samples is None:
        return None, "given" if options.curvature == "full" else "no samples, or J is kept whole"
    # steps by products need no rank: damping stands for what the sample does not see
    products = isinstance(solver.form, ProductsForm)
    if _mixes(facts, options, solver):
        rows = min(MIXED_ENOUGH, max(facts.samples, MIXED_LEAST))
        share = min(1.0, max(SAMPLED_SHARE * facts.samples, rows) / m)
        if share == 1 and options.curvature == "auto":
            return None, f"no more than {MIXED_LEAST} rows"
        return share, (
            f"{math.ceil(share * m)} random combinations of the {m // facts.samples} rows of a "
            "sample; twice as many when the gain ratio falls under 1/4 on the same data; cost and "
            "gradient are exact"
        )
    enough = SAMPLED_ROWS * (min(n, SAMPLED_ENOUGH) if products else n)
    # the k rows of an image say less than k rows of images of their own: a sample is enough sooner
    few = m < (enough / 4 if products and facts.outputs > 1 else enough)
    if options.curvature == "auto" and (small or few):
        return (
            None,
            f"n <= {SMALL}, several terms, or fewer than {SAMPLED_ROWS} rows for each parameter",
        )
    least = SAMPLED_ENOUGH if products else SAMPLED_LEAST * n
    share = min(1.0, max(SAMPLED_SHARE, least / m))
    return (
        share,
        "the sample doubles when the gain ratio falls under 1/4; cost and gradient are exact",
    )


def _share_of_dual(facts: Facts, options: Options, several: bool) -> tuple[float | None, str]:
    """The share of the rows, residuals with their derivatives, that m × m equations begin with."""
    m = facts.residuals
    possible = facts.samples is not None and facts.processes == 1 and not facts.streams
    if options.curvature == "sampled" and not possible:
        raise InputError(
            "curvature='sampled' with the dual equations needs samples in memory of one process, "
            "step(closure, *batch). Choose solver='cg' for a loader or several processes."
        )
    wanted = options.curvature == "sampled" or (options.curvature == "auto" and several)
    if not (wanted and possible) or (options.curvature == "auto" and m < DUAL_ENOUGH):
        given = options.curvature == "full"
        return None, "given" if given else f"one term, or fewer than {DUAL_ENOUGH} rows"
    share = min(1.0, max(SAMPLED_SHARE, DUAL_LEAST / m))
    return (
        share,
        "residuals and rows of the sample, which doubles when the gain ratio falls under 1/4; the "
        "cost is that of all",
    )


def _passes(share: float | None, products: bool) -> str:
    """How often a step reads all samples."""
    model = "one for the linear model" if share is None else "two for the linear model"
    return f"{model}, one a trial" + (", one a product" if products else "")
