"""What is tried if a run ends at no certified minimum."""

from dataclasses import replace

from ..core.method import Method
from ..damping.nielsen import Nielsen
from ..damping.scaling import CurrentNorms, Levenberg, More
from ..damping.trust_region import TrustRegion
from .facts import Alternative
from .options import Options


def alternatives(method: Method, options: Options, small: bool) -> tuple[Alternative, ...]:
    """What is tried if a run ends at no certified minimum; nothing if the strategy was chosen."""
    # no single strategy finds every minimum, and each fails elsewhere: benchmarks/honesty.py
    asked = (options.damping, options.solver)
    if (
        not (small and method.certify)
        or any(choice != "auto" for choice in asked)
        or options.acceleration is True
    ):
        return ()
    if method.careful is not None:  # they are few, and digits may be what was missing
        method = replace(method, solver=method.careful, careful=None)
    ways = [("D forgotten, from where it had ended", method.damping, method.scaling, True)]
    if options.scaling == "auto":
        ways += [
            ("Nielsen's damping and current column norms", Nielsen(), CurrentNorms(), False),
            ("a first radius ten times as long", TrustRegion(10.0), More(), False),
            ("Nielsen's damping and Levenberg's scaling", Nielsen(), Levenberg(), False),
        ]
    else:
        ways += [("Nielsen's damping", Nielsen(), method.scaling, False)]
    others = [
        Alternative(
            name,
            replace(method, damping=damping, scaling=scaling, windows=1 if restart else 2),
            restart,
        )
        for name, damping, scaling, restart in ways
    ]
    return (
        *others,
        Alternative(
            "more patience, from where the best had ended", replace(method, patience=0.0), True
        ),
    )
