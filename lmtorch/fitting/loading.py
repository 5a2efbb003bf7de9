"""`load`: a result from the file that its `save` has written."""

import os
from functools import partial
from typing import Any

import torch

from .._checks import flag
from .._errors import InputError
from .._files import read
from .._records import decoded
from ..core.termination import Status
from ..minimising.solution import Solution
from .orthogonal.fit import OrthogonalFit
from .results.result import CurveFit
from .saving.reading import inference_of, undamaged

HEAD = ("format", "version", "lmtorch", "kind")
KINDS = {"CurveFit": CurveFit, "OrthogonalFit": OrthogonalFit}


def load(
    path: str | os.PathLike[str], f: Any = None, *, code: bool = True, device: Any = None
) -> Any:
    """Read a result that was saved by `fit.save(path)`; nothing is fitted again.

    The function of the fit is imported from where it was, and evaluated at the data: where it is
    not there, or gives another curve than the one that was saved, the fit comes without it, a
    warning and `fit.notes` say why, and what needs it (fit(x), bands, pictures, profiles, refits)
    is refused. Values, errors, statistics and `report()` need no function.

    No code is in a file, but a file says which function is imported and called with its x, and may
    name any that is installed: give `f` or `code=False` for the file of a stranger.

    Args:
        path: of the file.
        f: the function of the fit, or the module, or with `shared` a list of functions, in place of
            the one that the file names. Default: that one.
        code: whether modules that the file names are imported. Default: True.
        device: where tensors are put. Default: the CPU. Of a fit of arrays it is ignored.

    Returns:
        The `CurveFit`, `OrthogonalFit` or `Solution` as it was: numbers, arrays and tensors have
        the same bits, but no gradients.

    Raises:
        InputError: the file is none of `save`, damaged, or of a later version; f has other
            parameters than the fit, gives another curve at its data, or is given for a `Solution`;
            or the device is none.
        FileNotFoundError: there is no such file.

    Example:
        >>> import os, tempfile, numpy as np, lmtorch
        >>> x = np.array([0.0, 1.0, 2.0, 3.0])
        >>> def line(x, slope, intercept):
        ...     return slope * x + intercept
        >>> fit = lmtorch.curve_fit(line, x, 2 * x + np.array([0.9, 1.1, 1.1, 0.9]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "line.json")
        ...     fit.save(path)
        ...     again = lmtorch.load(path, f=line)
        >>> print(again, again.predict([10.0]))
        CurveFit(slope=2.00(6), intercept=1.0(1)) [21.]
    """
    imports, device = flag(code, "code"), _device(device)
    record = read(path)
    if record.get("kind") == Solution.__name__:
        if f is not None:
            raise InputError(f"{path} has a solution of least_squares, which takes no f.")
        return _solution(record, device)
    kind = KINDS.get(str(record.get("kind")))
    if kind is None:
        raise InputError(f"the file has a {record.get('kind')!r}, which is no kind of fit.")
    inference = inference_of(record, f, imports=imports, device=device, told=imports)
    return kind(inference, full_output=record["full_output"], failed=record["failed"])


def _device(device: Any) -> torch.device | None:
    try:
        return None if device is None else torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"device={device!r} is none: give a name such as 'cuda'.") from error


def _solution(record: dict[str, Any], device: torch.device | None) -> Solution:
    """The solution of a record."""
    entries = {name: value for name, value in record.items() if name not in HEAD}
    told = entries.pop("explanation", None)
    with undamaged():
        found = Solution({name: decoded(value, device) for name, value in entries.items()})
        if isinstance(found["message"], str):
            found["status"] = Status(found["status"])
    if told is not None:
        found.explained(partial(str, told))
    return found
