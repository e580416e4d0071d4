"""The documentation as a site, which ``make docs`` builds.

Pages are Markdown as it stands in the repository, and their links lead from file to file. So the repository is what
Sphinx takes its sources from, and no link is rewritten.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path

from sphinx.application import Sphinx

REPO = Path(__file__).parents[1]
FRONT_PAGE = "docs/index"

# The reference is read from the code, and to import that imports Airflow, which makes itself a home.
sys.path[:0] = [str(REPO), str(REPO / "practicus_provider" / "runtime")]
AIRFLOW_HOME = tempfile.TemporaryDirectory(prefix="practicus-docs-")
os.environ["AIRFLOW_HOME"] = AIRFLOW_HOME.name

project = html_title = "practicus-provider"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
root_doc = FRONT_PAGE
include_patterns = ["*.md", "docs/*.md", "images/README.md", "tests/cluster/README.md"]
exclude_patterns = [".*", "build"]

myst_heading_anchors = 4
highlight_language = "none"

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100

html_theme = "furo"
html_copy_source = False
html_show_copyright = False


def navigation(app: Sphinx, page: str, source: list[str]) -> None:
    """Make the front page's lists the site's navigation; a page that is in none of them comes last."""
    if page != FRONT_PAGE:
        return
    folder, nav, listed = (REPO / page).parent, [], {page}
    for heading, body in re.findall(r"^## (.+)\n((?:(?!## ).*\n)+)", source[0], re.MULTILINE):
        nav.append(["", "```{toctree}", ":hidden:", f":caption: {heading}", ""])
        for title, link in re.findall(r"\[([^\]]+)\]\(([^)#]+)\.md\)", body):
            found = os.path.relpath(folder / link, REPO)
            nav[-1].append(f"{title} </{found}>")
            listed.add(found)
    nav[-1] += (f"/{found}" for found in sorted(app.env.found_docs - listed))
    source[0] += "".join("\n".join((*lines, "```", "")) for lines in nav)


def front_door(app: Sphinx, error: Exception | None) -> None:
    """Lead who opens the site's folder to its front page."""
    if error is None:
        target = f"{FRONT_PAGE}.html"
        text = f'<!doctype html><title>{project}</title><meta http-equiv="refresh" content="0; url={target}">'
        (Path(app.outdir) / "index.html").write_text(f'{text}<a href="{target}">{project}</a>\n')


def setup(app: Sphinx) -> None:
    """Sphinx calls this once it has read what is above."""
    app.connect("source-read", navigation)
    app.connect("build-finished", front_door)
