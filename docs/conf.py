"""Sphinx configuration: `make docs` builds build/docs, warnings are errors."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import gpu_sdm

project = "gpu-sdm"
author = "The gpu-sdm developers"
copyright = "2026, the gpu-sdm developers"
version = release = gpu_sdm.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "numpydoc",
    "sphinx_copybutton",
    "command_reference",
    "mathml",
]
html_math_renderer = "mathml"
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"gpu-sdm {release}"
html_theme_options = {"source_directory": "docs/"}
html_static_path: list[str] = []

myst_enable_extensions = ["deflist", "dollarmath", "colon_fence", "attrs_block"]
myst_heading_anchors = 4

autosummary_generate = True
autodoc_typehints = "none"  # numpydoc's Parameters say it with shapes and units
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True

linkcheck_ignore = [r"https://doi\.org/.*"]  # publishers turn robots away
linkcheck_timeout = 20
