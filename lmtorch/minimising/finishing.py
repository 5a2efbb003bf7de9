"""From where the loop ended to the solution: the best of several starts, the graph of a differentiable fit."""

import torch
from torch import Tensor

from ..losses.robust import Robust
from .implicit import attach
from .minimise import Ending
from .results import Results, pick
from .setup import Setup
from .solution import Solution
from .starts import best


def finish(setup: Setup, results: Results, outcome: Ending) -> Solution:
    """The best of the starts, with the graph that leads to the arguments."""
    every = None
    if setup.starts > 1:
        every = results.solution(outcome)
        assert outcome.state.cost is not None
        outcome = pick(outcome, best(outcome.state.cost.view(setup.lead)))
        results = Results(
            setup.unknowns,
            setup.lead[1:],
            setup.box,
            results.scale,
            results.names,
            results.ways,
            results.unit,
        )
    solution = results.solution(outcome, _with_graph(setup, outcome))
    solution.starts = every
    return solution


def _with_graph(setup: Setup, outcome: Ending) -> tuple[Tensor, Tensor, Tensor] | None:
    """x, cost and residuals with a graph that leads to the arguments, if one of them asks for gradients."""
    calling = setup.calling
    if setup.unknowns.numpy or calling.arrays or not setup.grad or not calling.differentiable():
        return None
    graph, loss = setup.with_graph(), setup.loss
    if outcome.scale is not None:
        assert isinstance(loss, Robust)
        loss = Robust(loss.rho, outcome.scale)
    with torch.enable_grad():
        x = attach(graph, loss, outcome.state.x, outcome.free)
        (part,) = graph.parts()
        residual = part.function(graph.params(x))
        return x, loss.cost(residual), residual
