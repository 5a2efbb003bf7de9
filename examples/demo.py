"""What lmtorch does, in under a minute (`make demo`): fit a curve of NIST's, train a network."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from examples import curve_fit_nist, sinc_network


def main(output: Path = Path("output")) -> None:
    """Both, with their reports and pictures."""
    print("1. A curve: thermal expansion of copper\n")
    digits = curve_fit_nist.main(output)
    print(
        f"\n{digits:.1f} correct digits in the worst parameter\n\n2. A network: 481 "
        "parameters on 10,000 samples\n"
    )
    sinc_network.main(output)


if __name__ == "__main__":
    main()
