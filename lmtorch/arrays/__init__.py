"""The arithmetic of the loop over an array namespace: torch's tensors, or NumPy's arrays.

A call of torch costs microseconds, whatever the size; of NumPy a fraction of one, and its numbers
(`np.float64`) a tenth of that. So the same code runs a batch, or a problem on a GPU, on tensors,
and one small problem on a CPU on NumPy arrays. Operators are common to both; for everything else
there is a function here that looks at the type of what it is given.

With NumPy there are no batch dimensions: what is (..., n) is a vector, and what is (...,) is one
number or one mask of NumPy's, never Python's own, of which a division by zero raises and `~True`
is -2. Annotations say `Tensor` for both.

The user's function and its derivatives are torch's always: `core/problem.py` is the border.
"""

from .border import arrays_of as arrays_of
from .border import heard as heard
from .border import noises as noises
from .border import on_numpy as on_numpy
from .border import quiet as quiet
from .border import tensor_from as tensor_from
from .border import tensors_of as tensors_of
from .border import to_type as to_type
from .border import with_type_of as with_type_of
from .choosing import join as join
from .choosing import last as last
from .choosing import minority as minority
from .choosing import nowhere as nowhere
from .choosing import places as places
from .choosing import put as put
from .choosing import read as read
from .choosing import readable as readable
from .choosing import seen as seen
from .choosing import select as select
from .choosing import settled as settled
from .choosing import stacked as stacked
from .choosing import take as take
from .choosing import unbatched as unbatched
from .choosing import where as where
from .elementwise import always as always
from .elementwise import at_least as at_least
from .elementwise import at_most as at_most
from .elementwise import filled as filled
from .elementwise import finite as finite
from .elementwise import gathered as gathered
from .elementwise import highest as highest
from .elementwise import is_nan as is_nan
from .elementwise import maximum as maximum
from .elementwise import minimum as minimum
from .elementwise import never as never
from .elementwise import reciprocal as reciprocal
from .elementwise import resolution as resolution
from .elementwise import smallest as smallest
from .elementwise import spread as spread
from .elementwise import sqrt as sqrt
from .elementwise import statuses as statuses
from .elementwise import unseen as unseen
from .elementwise import with_shape_of as with_shape_of
from .elementwise import zeros as zeros
from .matrices import along as along
from .matrices import apply as apply
from .matrices import beside as beside
from .matrices import cholesky as cholesky
from .matrices import column_norms as column_norms
from .matrices import diagonal as diagonal
from .matrices import diagonal_matrix as diagonal_matrix
from .matrices import eigh as eigh
from .matrices import eigvalsh as eigvalsh
from .matrices import gram as gram
from .matrices import identity as identity
from .matrices import joined as joined
from .matrices import norms_along as norms_along
from .matrices import ones as ones
from .matrices import put_beside as put_beside
from .matrices import reduced as reduced
from .matrices import reduced_of as reduced_of
from .matrices import room as room
from .matrices import scaled_svd as scaled_svd
from .matrices import svd as svd
from .matrices import transposed as transposed
from .sums import all_entries_finite as all_entries_finite
from .sums import all_finite as all_finite
from .sums import count as count
from .sums import every as every
from .sums import every_entry as every_entry
from .sums import inner as inner
from .sums import largest as largest
from .sums import norm as norm
from .sums import some as some
from .sums import squared as squared
from .sums import total as total
