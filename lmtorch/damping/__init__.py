"""Who damps: proposes a step from the factored equations, and learns from how the trial went."""

from .base import Damping as Damping
from .base import LinearModel as LinearModel
from .base import Outcome as Outcome
from .base import Proposal as Proposal
from .geodesic import Geodesic as Geodesic
from .marquardt import Marquardt as Marquardt
from .nielsen import Nielsen as Nielsen
from .scaling import CurrentNorms as CurrentNorms
from .scaling import FixedScale as FixedScale
from .scaling import Levenberg as Levenberg
from .scaling import More as More
from .scaling import Scaling as Scaling
from .trust_region import TrustRegion as TrustRegion
