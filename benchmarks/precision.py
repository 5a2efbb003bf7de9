"""Float32 rows summed and factored in each precision: digits of JᵀJ and of a step, and seconds."""

import math

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from lmtorch.linearizations.normal import Normal, NormalForm
from lmtorch.rows.matrix import DenseRows
from lmtorch.solvers.cholesky import Cholesky

from .machine import table
from .paired import in_turns, shown

SAMPLES, BLOCK = 60_000, 1024
DAMPINGS = (1e-3, 1e-5, 1e-7, 1e-9)  # beside the largest eigenvalue
SINGLE, DOUBLE = torch.float32, torch.float64
WAYS = {
    "single": (NormalForm(), Cholesky(), SINGLE),
    "mixed": (NormalForm(SINGLE), Cholesky(), DOUBLE),
    "double": (NormalForm(), Cholesky(), DOUBLE),
    "double, refined": (NormalForm(), Cholesky(refined=True), DOUBLE),
}


def rows() -> tuple[Tensor, Tensor]:
    """J of a network with 501 parameters in float32, and residuals."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 20), nn.Tanh(), nn.Linear(20, 20), nn.Tanh(), nn.Linear(20, 1))
    parameters = {name: p.detach() for name, p in net.named_parameters()}

    def of_one(values: dict[str, Tensor], x: Tensor) -> Tensor:
        found: Tensor = functional_call(net, values, (x[None],))[0, 0]
        return found

    parts = []
    for x in torch.randn(SAMPLES, 2).split(4000):
        blocks = vmap(jacrev(of_one), (None, 0))(parameters, x)
        parts.append(torch.cat([block.flatten(1) for block in blocks.values()], 1))
    return torch.cat(parts), torch.randn(SAMPLES)


def summed(jacobian: Tensor, residual: Tensor, form: NormalForm, dtype: torch.dtype) -> Normal:
    """JᵀJ and Jᵀr, block by block."""
    n = jacobian.shape[1]
    sums = form.accumulator((n,), SAMPLES, torch.empty(0, dtype=dtype))
    for some, r in zip(jacobian.split(BLOCK), residual.split(BLOCK), strict=True):
        sums.add(r, DenseRows(sums.workspace(len(r)).copy_(some)))
    found = sums.finish(torch.ones((), dtype=DOUBLE), None)
    assert isinstance(found, Normal)
    return found


def run() -> str:
    """The table."""
    torch.set_num_threads(1)
    jacobian, residual = rows()
    wide = jacobian.double()
    exact, gradient = wide.mT @ wide, wide.mT @ residual.double()
    largest = torch.linalg.eigvalsh(exact)[-1]
    one = torch.ones(len(exact), dtype=DOUBLE)
    turns = in_turns({
        name: lambda form=form, dtype=dtype: summed(jacobian, residual, form, dtype)
        for name, (form, _, dtype) in WAYS.items()
    }, seconds=3.0, most=4)  # fmt: skip
    told = []
    for name, (_, solver, dtype) in WAYS.items():
        model = turns.results[name]
        error = torch.linalg.matrix_norm(model.normal.double() - exact, 2) / largest
        steps = []
        for share in DAMPINGS:
            damping = (share * largest).to(dtype)
            step = solver.factor(
                model._replace(gradient=gradient.to(dtype)), one.to(dtype)
            ).step(damping)  # fmt: skip
            right = torch.linalg.solve(exact + share * largest * torch.diag(one), -gradient)
            off = float(torch.linalg.vector_norm(step.double() - right) / right.norm())
            steps.append("no factors" if math.isnan(off) else f"{off:.0e}")
        told.append([name, f"{float(error):.0e}", *steps, shown(turns.least[name].processor)])
    header = ["", "JᵀJ / σ²", *(f"step at λ = {share:.0e} σ²" for share in DAMPINGS), "JᵀJ"]
    return (
        f"## Precision\n\nJᵀJ of {SAMPLES:,} rows in float32 of a network with {len(exact)} "
        "parameters: relative errors beside float64, where σ² is the largest eigenvalue, and "
        f"processor time on one thread.\n\n{table(header, told)}"
    )


if __name__ == "__main__":
    print(run())
