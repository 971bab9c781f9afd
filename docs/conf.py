"""Sphinx's settings; `build.py` puts pages, notebooks and figures together and calls it."""

import re

import unlearnkit

project, author = "unlearnkit", "The unlearnkit authors"
version = release = unlearnkit.__version__
copyright = f"{author}, MIT licence"
extensions = ["myst_nb", "sphinx_design", "sphinx.ext.autodoc", "numpydoc"]

exclude_patterns = ["README.md"]  # the front page includes parts of it

html_theme = "furo"
html_title = "unlearnkit"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_search_summary = False  # it is fetched, which a page opened from disk may not do
html_show_sourcelink = html_copy_source = False

nb_execution_mode = "off"
nb_render_markdown_format = "gfm"  # tables in outputs
# The widgets' scripts would come from another host, and no page shows a widget.
nb_ipywidgets_js = {}
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

default_role = "code"  # `name` in docstrings, as in Markdown
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
maximum_signature_line_length = 90
numpydoc_show_class_members = False


def setup(app):
    """Write types in signatures without their modules."""

    def short(app, what, name, value, options, signature, returned):
        if signature:
            signature = re.sub(r"~?\b(\w+\.)+(?=[A-Z])", "", signature).replace("<factory>", "{}")
            return signature, returned

    app.connect("autodoc-process-signature", short)
