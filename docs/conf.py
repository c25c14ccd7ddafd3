"""The documentation site, `make docs`. Neither its build nor its pages fetch anything."""

from __future__ import annotations

from importlib.metadata import version as version_of

project = "blt"
author = copyright = "The blt contributors"
version = release = version_of("byte-latent-transformer")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]

myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"blt {release}"
html_show_sphinx = False
pygments_style = "friendly"
pygments_dark_style = "monokai"
