"""Sphinx configuration: ``sphinx-build docs docs/_build/html``."""

from skvae import __version__

project = "skvae"
author = "The skvae developers"
copyright = "The skvae developers"
release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
numpydoc_show_class_members = False
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"/(quickstart|latent_densities)",
    "download_all_examples": False,
    "show_signature": False,
    "write_computation_times": False,
}
exclude_patterns = ["_build", "auto_examples/README.rst"]
html_theme = "alabaster"
html_theme_options = {"description": "A variational autoencoder for scikit-learn", "page_width": "1080px"}
