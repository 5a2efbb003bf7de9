"""Which solver a problem of some shape gets, and whether what it keeps fits the memory."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from .. import _memory
from .._errors import InputError
from .._triangles import LARGEST
from ..core.method import Method
from ..damping.scaling import Levenberg, Scaling
from ..jacobians.layerwise import LayerWise
from ..linearizations.base import Form
from ..linearizations.dense import DenseForm
from ..linearizations.layered import LayeredForm
from ..linearizations.products import ProductsForm
from ..linearizations.scattered import ScatteredForm
from ..solvers.base import Solver
from ..solvers.cholesky import Cholesky
from ..solvers.dual import Dual
from ..solvers.svd import SVD
from .derivations import black_box
from .facts import Derivation, Facts
from .members import SOLVERS
from .options import POLISH, SMALL, Options

MANY = 32  # problems from which their number, not that of their rows, is what costs
DENSE = 2**22  # entries of a Jacobian up to which a small problem's is kept whole for the SVD
SAMPLED_ROWS = 8  # rows per parameter from which JᵀJ is made of a sample of them
FREE = 4096  # parameters beyond which a step by products of samples is the better one
ROUGH = 512  # parameters and rows beyond which that holds for layers in float32, and for classes


def solver_of(
    facts: Facts, options: Options, small: bool, dtype: torch.dtype
) -> tuple[Solver, str]:
    """The solver, and why; without a matrix where none fits."""
    solver, why = _by_shape(facts, options, small)
    free = SOLVERS["cg"]
    if options.solver != "auto" or options.jacobian != "auto" or options.curvature == "sampled":
        return solver, why
    if _fits(facts, options, solver.form, dtype) or not _fits(facts, options, free.form, dtype):
        return solver, why
    size = solver.form.described(facts.parameters, facts.residuals)
    return free, f"the {size} does not fit: by products alone"


def _by_shape(facts: Facts, options: Options, small: bool) -> tuple[Solver, str]:
    """The solver by the shape of the problem, and why."""
    n, m = facts.parameters, facts.residuals
    if not isinstance(options.solver, str):
        return options.solver, "given"
    if options.solver != "auto":
        return SOLVERS[options.solver], "given"
    if options.curvature == "sampled" and facts.samples is not None and m >= n:
        return Cholesky(), "a sample of the rows estimates the normal equations"
    if many(facts, options):
        return Cholesky(), (
            f"{facts.problems} problems of n <= {LARGEST}: whole vectors over the problems; by "
            "singular values only where digits are in doubt"
        )
    if small and m * n <= DENSE:
        return SVD(), f"n <= {SMALL} and m n <= {DENSE}: the most accurate, and cheap"
    free = facts.samples is not None and not facts.streams and options.jacobian == "auto"
    if free and (n > FREE if facts.processes > 1 else min(n, m) > FREE):
        return SOLVERS["cg"], (
            f"n, m > {FREE} and samples: rough steps by products, many in the time of one"
        )
    if _called(facts, options) and min(n, m) > FREE:
        return SOLVERS["cg"], (
            f"n, m > {FREE}: products alone, in the time of one evaluation each; 'cholesky' takes "
            f"exact steps by {n} x {n} equations"
        )
    if free and facts.processes == 1 and options.curvature == "auto":
        why = _rough(facts)
        if why:
            return SOLVERS["cg"], why
    if m < n:
        return Dual(), f"m < n: {m} x {m} equations instead of {n} x {n}"
    return Cholesky(), "many residuals: rows stream, and only n x n is kept"


def _rough(facts: Facts) -> str:
    """Why many rough steps by products are ahead of fewer exact ones, on samples; empty: not so."""
    n, m = facts.parameters, facts.residuals
    if facts.outputs > 1 and (min(n, m) > ROUGH or m >= SAMPLED_ROWS * n):
        return f"{facts.outputs} outputs of a criterion: rough steps by a sample of its curvature"
    if facts.layers and m >= SAMPLED_ROWS * n:
        return f"layers, and m >= {SAMPLED_ROWS} n: rough steps by the factors of a sample of rows"
    if facts.layers and facts.dtype == torch.float32 and min(n, m) > ROUGH:
        exact = "dual" if m < n else "cholesky"
        return (
            f"layers, float32 and n, m > {ROUGH}: rough steps by factors, several in the time of "
            f"one; for the last digits solver='{exact}'"
        )
    return ""


def _called(facts: Facts, options: Options) -> bool:
    """Whether one function of all parameters is minimised, whose derivatives torch takes."""
    alone = facts.problems == 1 and facts.samples is None
    return facts.functional and alone and options.jacobian == "auto"


def many(facts: Facts, options: Options) -> bool:
    """Whether there are so many small problems that calls cost more than digits do."""
    return (
        facts.problems >= MANY
        and facts.parameters <= min(LARGEST, options.certified)
        and facts.residuals * facts.parameters <= DENSE
        and options.solver == "auto"
        and options.polish is None
        and not options.acceleration
        and not black_box(options.jacobian)
    )


def in_entries(method: Method, n: int) -> Method | None:
    """The method of many small problems in the place of one of the same kind, for n parameters.

    None where what was asked for is of another kind.
    """
    if not (method.certify and 0 < n <= LARGEST) or method.frugal or method.slopes:
        return None
    if method.careful is not None:
        return method
    bends = getattr(method.damping, "bends", False)
    if not isinstance(method.solver, SVD) or method.polish != POLISH or bends:
        return None
    return replace(method, solver=Cholesky(), careful=method.solver)


def takes_products(solver: Solver, options: Options) -> bool:
    """Whether derivatives are products, and no rows are made."""
    return isinstance(solver.form, ProductsForm) and options.jacobian == "auto"


def written(solver: Solver) -> Form:
    """The form, or that of a matrix where rows that are written out are kept for products."""
    return DenseForm() if isinstance(solver.form, ProductsForm) else solver.form


def of_layers(
    solver: Dual, scaling: Scaling, derivations: Sequence[Derivation], why: str
) -> tuple[Dual, str]:
    """The solver, on the factors of layers where all rows may come from layers.

    With Levenberg's scaling D is the same everywhere, as the factors need it in each parameter.
    """
    layers = all(isinstance(derivation.rungs[0], LayerWise) for derivation in derivations)
    if not (layers and isinstance(scaling, Levenberg)):
        return solver, why
    return Dual(LayeredForm()), f"{why}, of the factors of layers"


def sent(form: Form, n: int, m: int) -> str:
    """What the processes send each other at each point, in words."""
    if isinstance(form, ProductsForm):
        return f"each product with J is added over all: {n} numbers"
    if isinstance(form, LayeredForm):
        return f"the factors of all {m} rows go to all, and each makes the {m} x {m} matrix"
    if isinstance(form, ScatteredForm):
        return f"each makes its share of the {m} x {m} matrix: all rows pass by, none stay"
    if isinstance(form, DenseForm):
        return "rows, or where they are many their triangular factor, go to all"
    return f"one triangle of the {n} x {n} matrix is added over all"


def _fits(facts: Facts, options: Options, form: Form, dtype: torch.dtype) -> bool:
    """Whether what the form keeps fits the memory."""
    needed = form.entries(facts.parameters, facts.residuals) * dtype.itemsize
    return _memory.fits(needed, facts.device, options.memory_limit)


def check_memory(facts: Facts, options: Options, form: Form, dtype: torch.dtype) -> None:
    """See that what the form keeps fits the memory.

    Raises:
        InputError: it does not.
    """
    n, m = facts.parameters, facts.residuals
    if not _fits(facts, options, form, dtype):
        needed = form.entries(n, m) * dtype.itemsize
        there = _memory.budget(facts.device, options.memory_limit)
        raise InputError(
            f"the {form.described(n, m)} takes {needed / 2**30:.3g} GiB, and "
            f"{there / 2**30:.3g} GiB may be used on {facts.device}. Smaller batches with m < n "
            "are solved in m x m (solver='dual'); many residuals of few parameters stream with "
            "solver='cholesky' and step(closure, *batch); solver='cg' holds no matrix where torch "
            "takes the derivatives (jacobian='auto'); memory_limit raises the limit."
        )
