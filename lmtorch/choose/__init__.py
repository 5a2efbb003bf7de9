"""From "auto" and names to objects, and the reasons."""

from .explaining import explanation as explanation
from .facts import Facts as Facts
from .facts import Plan as Plan
from .members import DAMPINGS as DAMPINGS
from .members import PRECONDITIONERS as PRECONDITIONERS
from .members import RHOS as RHOS
from .members import SCALINGS as SCALINGS
from .members import SOLVERS as SOLVERS
from .members import SOURCES as SOURCES
from .members import elimination as elimination
from .options import LARGEST as LARGEST
from .options import POLISH as POLISH
from .options import SMALL as SMALL
from .options import Options as Options
from .options import loss as loss
from .planning import plan as plan
from .several import as_one as as_one
from .solving import DENSE as DENSE
from .solving import in_entries as in_entries
