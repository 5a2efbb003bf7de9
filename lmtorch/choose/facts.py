"""What is known of a problem, and what is decided about it."""

from typing import NamedTuple

import torch

from ..core.method import Method
from ..jacobians.base import JacobianSource


class Facts(NamedTuple):
    """What was found out about a problem."""

    parameters: int  # n
    residuals: int  # m
    samples: int | None  # independent ones; None: none are known
    # bytes of all intermediate results of an evaluation, of one sample if there are samples
    activations: int
    dtype: torch.dtype
    device: torch.device
    # dtype of the residuals, where it is coarser than that of the parameters
    precision: torch.dtype | None = None
    leading: int | None = None  # blocks of rows that may belong to independent samples
    problems: int = 1  # independent ones, each of these sizes, that are solved together
    streams: bool = False  # samples are read anew in each pass, as from a loader
    # all parameters are weights and biases of linear layers, as far as the module shows
    layers: bool = False
    functional: bool = False  # the residuals are called with the parameters, not set into a module
    outputs: int = 1  # of a sample, which a criterion takes together; 1: residuals
    processes: int = 1  # that share the rows: all numbers here are of all of them together


class Derivation(NamedTuple):
    """Where the derivatives of a term come from."""

    rungs: tuple[JacobianSource, ...]  # sources in the order in which they are tried
    chunk: int  # samples evaluated together, where there are samples


class Alternative(NamedTuple):
    """Another way to run, for what the method has not been sure of."""

    name: str  # what follows "with"
    method: Method
    restart: bool  # begin where the last run has ended, not where it began


class Plan(NamedTuple):
    """What is decided about a problem."""

    method: Method
    alternatives: tuple[Alternative, ...]
    terms: tuple[Derivation, ...]
    dtype: torch.dtype  # of the linear algebra
    share: float | None  # of the rows that JᵀJ is made of at first; None: all
    differences: bool  # bends along a step by differences of the residuals, not forward mode
    keep: bool  # r(x) stays with the linear model, for these bends
    reasons: tuple[tuple[str, str, str], ...]  # (what, choice, why)
    mixes: bool = False  # the share is of rows that mix the k outputs of a sample
