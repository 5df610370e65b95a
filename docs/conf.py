"""Sphinx: the pages are MyST Markdown, the references are made from the code (docs/_ext)."""

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))
sys.path.insert(0, str(Path(__file__).parents[1]))

project = "biloom"
author = "the biloom authors"
project_copyright = author
version = release = installed_version("biloom")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "biloom_docs"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["deflist", "colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
default_role = "code"
python_maximum_signature_line_length = 80

nitpicky = True
# Types of other packages have no page here, and a build needs no network.
nitpick_ignore_regex = [("py:.*", ".*")]

html_theme = "furo"
html_title = "biloom"
html_static_path = ["_static"]
html_css_files = ["biloom.css"]
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
