"""Labels of pandas: data that lie in another order than their labels say, and fits with names.

A fit takes points by their places, as scipy does. A column that was sorted by itself has the same
labels as the others in another order, and its points belong to other points than it seems.
"""

import warnings
from typing import Any

from ..._errors import level
from .owned import leaves_of


def warn_of_order(**given: Any) -> None:
    """Warn where columns of pandas have the same labels in another order.

    Args:
        given: arguments by name, in whatever form a user has them.
    """
    known = [
        (name, leaf.index)
        for name, value in given.items()
        for leaf in leaves_of(value)
        if type(leaf).__module__.partition(".")[0] == "pandas" and hasattr(leaf, "index")
    ]
    for name, index in known[1:]:
        first, begun = known[0]
        # labels of other depths are never the same, and pandas refuses to look for them
        if index.equals(begun) or (len(index), index.nlevels) != (len(begun), begun.nlevels):
            continue
        if index.is_unique and begun.is_unique and index.isin(begun).all():
            warnings.warn(
                f"{first} and {name} have the same labels in another order, and points are taken "
                f"by their places: if the labels tell which belong together, give "
                f"{name}.loc[{first}.index]; otherwise {name}.to_numpy() says that they do not.",
                UserWarning,
                stacklevel=level(),
            )
            return


def row_labels(ydata: Any) -> Any:
    """The labels of the rows of a table of pandas, one level of them; None: it is no table."""
    if type(ydata).__module__.partition(".")[0] != "pandas" or getattr(ydata, "ndim", 0) != 2:
        return None
    return ydata.index if ydata.index.nlevels == 1 else None
