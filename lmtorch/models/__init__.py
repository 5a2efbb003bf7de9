"""Models with named parameters that guess their start from data, and that add and multiply."""

import typing as _typing  # no name of the field, which are all that stands here

from ..calculus.special import faddeeva as faddeeva
from ..calculus.special import voigt_profile as voigt_profile
from .base import Model as Model
from .decays import Arrhenius as Arrhenius
from .decays import Biexponential as Biexponential
from .decays import Exponential as Exponential
from .decays import PowerLaw as PowerLaw
from .decays import StretchedExponential as StretchedExponential
from .functions import from_function as from_function
from .growth import Hill as Hill
from .growth import Hill5 as Hill5
from .growth import Logistic as Logistic
from .growth import Logistic4 as Logistic4
from .growth import Logistic5 as Logistic5
from .growth import MichaelisMenten as MichaelisMenten
from .lines import Constant as Constant
from .lines import Linear as Linear
from .lines import Polynomial as Polynomial
from .lines import Quadratic as Quadratic
from .peaks import Gaussian as Gaussian
from .peaks import Lorentzian as Lorentzian
from .peaks import Moffat as Moffat
from .peaks import Pearson7 as Pearson7
from .peaks import PseudoVoigt as PseudoVoigt
from .peaks import Voigt as Voigt
from .responses import GaussianResponseDecay as GaussianResponseDecay
from .responses import MeasuredResponseDecay as MeasuredResponseDecay
from .skewed import BreitWigner as BreitWigner
from .skewed import Doniach as Doniach
from .skewed import ExponentialGaussian as ExponentialGaussian
from .skewed import Lognormal as Lognormal
from .skewed import SkewedGaussian as SkewedGaussian
from .skewed import SkewedVoigt as SkewedVoigt
from .skewed import SplitGaussian as SplitGaussian
from .skewed import SplitLorentzian as SplitLorentzian
from .specs import from_spec as from_spec
from .steps import Rectangle as Rectangle
from .steps import Step as Step
from .surfaces import Gaussian2D as Gaussian2D
from .waves import DampedSine as DampedSine
from .waves import Sine as Sine

if not _typing.TYPE_CHECKING:  # a checker that saw it would take any name for one that there is

    def __getattr__(name: str) -> object:
        """Answer lmfit's names of models, as `GaussianModel`.

        Raises:
            AttributeError: always; it says what to write.
        """
        said = f"module {__name__!r} has no attribute {name!r}"
        known = name.endswith("Model") and name.removesuffix("Model") in globals()
        raise AttributeError(
            f"{said}: write models.{name.removesuffix('Model')}" if known else said
        )
