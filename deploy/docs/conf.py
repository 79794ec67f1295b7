"""Sphinx's configuration of the documentation; `deploy/docs.py` builds it.

`reference_entries` writes the entries of public names and of commands.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from mousetrap import __version__

project = "mousetrap"
author = "The mousetrap developers"
project_copyright = author
version = release = __version__

extensions = [
    "myst_nb",  # the notebooks with their outputs, and pages in Markdown
    "sphinx.ext.autodoc",  # the reference, from the docstrings
    "sphinx.ext.napoleon",  # sections of docstrings: `Raises:`
    "sphinx_copybutton",  # copies an example without its output
    "reference_entries",
]
exclude_patterns = ["_build"]

# Notebooks are shown as they are committed. A test runs them.
nb_execution_mode = "off"
nb_merge_streams = True
# An output has the form that a browser shows best, for example HTML before text.
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
myst_links_external_new_tab = False

smartquotes = False  # quotes and dashes are part of what the texts quote
default_role = "py:obj"  # a name in `backticks`: a link if it has an entry, else code
add_module_names = False
python_use_unqualified_type_names = True
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_type_aliases = {  # shown by their names
    each: each for each in ("Targets", "Target", "Bindings", "Log", "OnMissing", "WorkerKind")
}
python_maximum_signature_line_length = 88  # then one parameter a line
toc_object_entries = False  # each entry has a heading
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = "mousetrap"
html_static_path = ["assets"]
html_css_files = ["site.css"]
html_show_copyright = False
html_copy_source = False
html_show_sourcelink = False
html_use_index = True
# What the theme would fetch from another host: nothing.
html_theme_options = {"source_repository": "", "footer_icons": []}

suppress_warnings = [
    "myst.header",  # a notebook may go from the title to a heading of the third level
    "mystnb.unknown_mime_type",  # JupyterLab's own forms of an output, beside HTML and text
]
copybutton_prompt_text = r"\$ |>>> "
copybutton_prompt_is_regexp = True
