"""How Sphinx makes the site of these pages: `make docs`."""

import sys
from pathlib import Path

import lmtorch

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "lmtorch"
author = "lmtorch developers"
copyright = f"2026, {author}"
version = release = lmtorch.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "docstrings",
    "gallery",
    "formulas",
    "members",
    "outside",
]
exclude_patterns = ["_build", "_extensions"]

# ---- pages ---------------------------------------------------------------------------------------

myst_enable_extensions = ["colon_fence", "dollarmath", "attrs_inline"]
myst_heading_anchors = 4  # links to headings are those that GitHub makes
html_math_renderer = "mathml"
nitpicky = False  # types of torch and NumPy have no pages here
# a word of a signature that several classes have as a field is no link then, and need not be
suppress_warnings = ["ref.python"]

# ---- the reference -------------------------------------------------------------------------------

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "undoc-members": False}
autodoc_preserve_defaults = True
napoleon_use_rtype = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True

# ---- how it looks --------------------------------------------------------------------------------

html_theme = "furo"
html_title = f"lmtorch {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_search_scorer = str(Path(__file__).parent / "_static/scorer.js")
html_copy_source = False
html_show_sphinx = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
