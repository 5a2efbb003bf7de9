"""Derivatives of models: in the inputs of each sample, in parameters, of first and second order.

Functions are written for a batch, `(*batch, *in)` to `(*batch, *out)`, as networks are;
`batch_dims` says how many leading dimensions are samples. Results are ordinary tensors, which can
be differentiated again: in a loss, in the residuals of a `LevenbergMarquardt` step, under
`torch.func.vmap`.
"""

from .along import hvp as hvp
from .along import second_directional_derivative as second_directional_derivative
from .by_column import parameter_column as parameter_column
from .by_parameter import parameter_jacobian as parameter_jacobian
from .checking import DerivativeCheck as DerivativeCheck
from .checking import check_derivatives as check_derivatives
from .checking import finite_difference_jacobian as finite_difference_jacobian
from .first import batch_jacobian as batch_jacobian
from .first import curl as curl
from .first import divergence as divergence
from .first import gradient as gradient
from .first import jacobian as jacobian
from .first import jvp as jvp
from .first import vjp as vjp
from .second import ValueJacobianHessian as ValueJacobianHessian
from .second import batch_hessian as batch_hessian
from .second import hessian as hessian
from .second import hessian_diagonal as hessian_diagonal
from .second import laplacian as laplacian
from .second import value_jacobian_hessian as value_jacobian_hessian
