"""Sphinx configuration: ``sphinx-build docs docs/_build``."""

import runpy
import sys
from pathlib import Path

import skvae

sys.path.insert(0, str(Path(__file__).parent))

project = "skvae"
author = "The skvae developers"
copyright = "The skvae developers"
release = version = skvae.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "sphinx-mathjax-offline",
]
exclude_patterns = ["_build", "inventories", "figures"]
templates_path = ["_templates"]

# ------------------------------------------------------------------------------------------------------------------- pages

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# names of other packages, kept here so that a build needs no network: see inventories/README.md
intersphinx_mapping = {
    "sklearn": ("https://scikit-learn.org/stable/", "inventories/sklearn.inv"),
}

# --------------------------------------------------------------------------------------------------------------- reference

autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
numpydoc_citation_re = r"[\w-]+"

# ----------------------------------------------------------------------------------------------------------------- gallery

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"/(quickstart|plot_)",
    "ignore_pattern": r"/app\.py",
    "download_all_examples": False,
    "show_signature": False,
    "write_computation_times": False,
    "backreferences_dir": "generated/backreferences",
    "doc_module": ("skvae",),
    "within_subsection_order": "gallery_order.place_of",
    "capture_repr": (),
}

# -------------------------------------------------------------------------------------------------------------- benchmarks

# drawn anew from the recorded figures in every build
runpy.run_path(str(Path(__file__).parent / "figures" / "draw.py"), run_name="__main__")

# ------------------------------------------------------------------------------------------------------------------- theme

html_theme = "pydata_sphinx_theme"
html_title = "skvae"
html_context = {"default_mode": "auto"}
html_static_path = ["_static"]
html_favicon = "_static/favicon.svg"
html_css_files = ["skvae.css"]
html_theme_options = {
    "header_links_before_dropdown": 6,
    "navbar_align": "left",
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
    "switcher": {"json_url": "_static/versions.json", "version_match": "dev"},
    "check_switcher": False,
    "navbar_end": ["version-switcher", "theme-switcher"],
}
