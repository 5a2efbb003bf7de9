"""Every member of every protocol.

A new member is entered here, and all the laws of its protocol hold for it. Where `choose` knows a
member by name, that name is the key. Members without a name, and members with other arguments,
stand beside it under any key. `test_members.py` fails where something is missing.
"""

from lmtorch.compiling.columns import ByColumns
from lmtorch.damping.base import Damping
from lmtorch.damping.geodesic import Geodesic
from lmtorch.damping.marquardt import Marquardt
from lmtorch.damping.nielsen import Nielsen
from lmtorch.damping.scaling import CurrentNorms, FixedScale, Levenberg, More, Scaling
from lmtorch.damping.several import SeveralDampings
from lmtorch.damping.trust_region import TrustRegion
from lmtorch.fitting.orthogonal.residual import DisplacementResidual, OwnColumns
from lmtorch.fitting.orthogonal.sampson import Distances
from lmtorch.jacobians.autograd import Autograd
from lmtorch.jacobians.by_term import ByTerm
from lmtorch.jacobians.dual_numbers import DualNumbers
from lmtorch.jacobians.finite_difference import FiniteDifference
from lmtorch.jacobians.forward import Forward
from lmtorch.jacobians.given import GivenJacobian
from lmtorch.jacobians.ladder import Ladder
from lmtorch.jacobians.latest import Latest
from lmtorch.jacobians.layerwise import LayerWise
from lmtorch.jacobians.per_sample import PerSample
from lmtorch.jacobians.products import Products
from lmtorch.jacobians.reverse import Reverse
from lmtorch.linearizations.base import Form
from lmtorch.linearizations.blocks import BlocksForm
from lmtorch.linearizations.dense import DenseForm
from lmtorch.linearizations.layered import LayeredForm
from lmtorch.linearizations.normal import NormalForm
from lmtorch.linearizations.products import ProductsForm
from lmtorch.linearizations.roundoff import RoundOffForm
from lmtorch.linearizations.scattered import ScatteredForm, ScatteredRows
from lmtorch.linearizations.sketch import SketchForm
from lmtorch.losses.base import Loss
from lmtorch.losses.criterion import Bound
from lmtorch.losses.linear import Linear
from lmtorch.losses.robust import (
    Barron,
    Robust,
    arctan,
    cauchy,
    geman_mcclure,
    huber,
    soft_l1,
    tukey,
)
from lmtorch.solvers.base import Solver
from lmtorch.solvers.cholesky import Cholesky
from lmtorch.solvers.conjugate_gradients import ConjugateGradients
from lmtorch.solvers.dual import Dual
from lmtorch.solvers.preconditioners import Jacobi, Nystrom, Preconditioner, Scales
from lmtorch.solvers.qr import QR
from lmtorch.solvers.row_sample import RowSample
from lmtorch.solvers.schur import Schur
from lmtorch.solvers.svd import SVD
from lmtorch.training.mixed import MixedResidual
from lmtorch.training.streamed import StreamResidual
from lmtorch.training.targets import Read

from . import cases
from .cases import MakeCase, Source

SOLVERS: dict[str, Solver] = {
    "svd": SVD(),
    "qr": QR(),
    "cholesky": Cholesky(),
    "cholesky, refined": Cholesky(refined=True),
    "dual": Dual(),
    "dual, of layers": Dual(LayeredForm()),
    "cg": ConjugateGradients(),
}
PRECONDITIONERS: dict[str, Preconditioner] = {
    "scales": Scales(),
    "jacobi": Jacobi(),
    "nystrom": Nystrom(3),
    "rows": RowSample(3),
    "all rows": RowSample(10**6),
}
# solvers that stop early, with what makes them go on to the digits that the laws ask for
TO_DIGITS: dict[str, Solver] = SOLVERS | {
    "cg": ConjugateGradients(1e-15, 2000),
    **{
        f"cg, {name}": ConjugateGradients(1e-15, 2000, preconditioner)
        for name, preconditioner in PRECONDITIONERS.items()
    },
}

DAMPINGS: dict[str, Damping] = {
    "trust_region": TrustRegion(),
    "nielsen": Nielsen(),
    "marquardt": Marquardt(),
    "geodesic trust_region": Geodesic(TrustRegion()),
    "geodesic nielsen": Geodesic(Nielsen()),
    "geodesic marquardt": Geodesic(Marquardt()),
}

SCALINGS: dict[str, Scaling] = {
    "more": More(),
    "levenberg": Levenberg(),
    "marquardt": CurrentNorms(),
    "one number": FixedScale(cases.column(2.0)),
    "a number for each parameter": FixedScale(cases.column(0.5, 2.0, 3.0)),
    "a row for each problem": FixedScale(cases.column(*range(1, 13)).reshape(4, 3)),
}

SOURCES: dict[str, Source] = {
    "forward": Source(lambda chunk, function: Forward(chunk)),
    "reverse": Source(lambda chunk, function: Reverse(chunk)),
    "autograd": Source(lambda chunk, function: Autograd(chunk)),
    "autograd row by row": Source(lambda chunk, function: Autograd(chunk, batched=False)),
    "per_sample": Source(
        lambda chunk, function: PerSample(chunk), needs_samples=True, takes_batches=False
    ),
    "layerwise": Source(
        lambda chunk, function: LayerWise(chunk), needs_samples=True, takes_batches=False
    ),
    "products": Source(lambda chunk, function: Products()),
    "products, each evaluated anew": Source(lambda chunk, function: Products(keep=False)),
    "2-point": Source(lambda chunk, function: FiniteDifference("2-point"), digits=1 / 2),
    "3-point": Source(lambda chunk, function: FiniteDifference("3-point"), digits=2 / 3),
    "a given matrix": Source(lambda chunk, function: GivenJacobian(cases.matrix_of(function))),
    "given blocks": Source(
        lambda chunk, function: GivenJacobian(cases.blocks_of(function)), takes_batches=False
    ),
    "a ladder": Source(lambda chunk, function: Ladder([Forward(chunk), Autograd(chunk)])),
    "by term": Source(lambda chunk, function: ByTerm([Reverse(chunk)])),
}

# how each kind of rows is drawn at random, for so many samples of k rows
ROWS: dict[str, cases.MakeRows] = {
    "dense": cases.dense_rows,
    "dense of a batch": cases.dense_rows_of_a_batch,
    "columns": cases.columns,
    "columns of a batch": cases.columns_of_a_batch,
    "outer products": cases.outer_rows,
    "factors of layers": cases.layer_rows,
    "own columns": cases.own_rows,
    "products": cases.product_rows,
    "products of a batch": cases.product_rows_of_a_batch,
}

FORMS: dict[str, Form] = {
    "dense": DenseForm(),
    "normal": NormalForm(),
    "blocks": BlocksForm(),
    "layered": LayeredForm(),
    "products": ProductsForm(),
}

LOSSES: dict[str, Loss] = {
    "linear": Linear(),
    "soft_l1": Robust(soft_l1),
    "huber": Robust(huber),
    "cauchy": Robust(cauchy),
    "arctan": Robust(arctan),
    "tukey": Robust(tukey),
    "geman_mcclure": Robust(geman_mcclure),
    "barron": Robust(Barron()),
    "soft_l1, C = 0.3": Robust(soft_l1, 0.3),
    "huber, C = 0.3": Robust(huber, 0.3),
    "cauchy, C = 0.3": Robust(cauchy, 0.3),
    "arctan, C = 0.3": Robust(arctan, 0.3),
    "tukey, C = 0.3": Robust(tukey, 0.3),
    "geman_mcclure, C = 0.3": Robust(geman_mcclure, 0.3),
    "barron, α = −2, C = 0.3": Robust(Barron(-2.0), 0.3),
}

RESIDUALS: dict[str, MakeCase] = {
    "a function": cases.function,
    "a function of a batch": cases.function_of_a_batch,
    "one problem": cases.one_problem,
    "problems": cases.problems,
    "problems one by one": cases.problems_one_by_one,
    "a closure": cases.closure,
    "a closure with dropout": cases.closure_with_dropout,
    "samples": cases.samples,
    "samples with dropout": cases.samples_with_dropout,
    "terms": cases.terms,
}

ELSEWHERE: dict[type, str] = {
    # Its linear model has no whole rows, and it solves one problem at a time: these laws hand it
    # rows, in batches and with priors, so that it has the same laws in a battery of its own.
    Schur: "tests/linearizations/test_blocks.py",
    # Errors in x: one residual and one source that belong together, and know of points.
    DisplacementResidual: "tests/fitting/orthogonal/test_orthogonal.py",
    OwnColumns: "tests/fitting/orthogonal/test_orthogonal.py",
    # Distances of points to an implicit curve, where a fit begins: their points are at hand.
    Distances: "tests/fitting/orthogonal/test_sampson.py",
    # These laws set parameters into modules, which take nothing but tensors.
    DualNumbers: "tests/jacobians/test_dual_numbers.py",
    # What another source has given is remembered, of a pure function on a CPU.
    Latest: "tests/jacobians/test_latest.py",
    # Rows that are drawn, of which only the mean of the squares is the criterion's.
    MixedResidual: "tests/training/test_mixed.py",
    # Strategies of their own for each problem of one batch, of which these laws know the number.
    SeveralDampings: "tests/minimising/test_side_by_side.py",
    # A criterion with its targets: of one problem, and of as many outputs as it has targets.
    Bound: "tests/losses/test_criteria.py",
    # It is there to be traced: the fits that are written from it are held to those of the loop.
    ByColumns: "tests/compiling/test_compiled_fits.py",
    # Rows that lie with several processes, and products that all of these make together.
    ScatteredRows: "tests/distributed/test_steps.py",
    ScatteredForm: "tests/distributed/test_steps.py",
    # Sums of round-off over the rows of a form: no linear model, and no member of a method.
    SketchForm: "tests/linearizations/test_sketch.py",
    RoundOffForm: "tests/linearizations/test_roundoff.py",
    # Samples of a loader, and the targets that are read with them.
    StreamResidual: "tests/training/test_loaders.py",
    Read: "tests/training/test_loaders.py",
}
