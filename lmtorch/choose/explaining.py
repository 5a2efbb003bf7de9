"""What was chosen and why, as a table."""

from collections.abc import Sequence

from ..jacobians.ladder import Ladder
from .facts import Plan


def explanation(plan: Plan, ladders: Sequence[Ladder] = ()) -> str:
    """The choices as a table, with the numbers behind them, and what was refused before.

    Args:
        plan: what was decided.
        ladders: the sources of each term, as they stand now; none where one was given.

    Returns:
        A line for each choice: what, which, why.
    """
    remaining = iter(ladders)
    rows: list[tuple[str, ...]] = []
    for what, chosen, why in plan.reasons:
        ladder = next(remaining, None) if what.startswith("jacobian") else None
        if ladder is None or not ladder.refusals:
            rows.append((what, chosen, why))
            continue
        rows.append(
            (what, repr(ladder.current), f"in the place of {chosen}, which would be chosen: {why}")
        )
        rows += [("refused", *refusal.split(": ", 1)) for refusal in ladder.refusals]
    widths = [max(len(row[i]) for row in rows) for i in (0, 1)]
    return "\n".join(
        f"{what:<{widths[0]}}  {chosen:<{widths[1]}}  {why}" for what, chosen, why in rows
    )
