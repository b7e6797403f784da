"""The documentation site: pages in Markdown, the API from the docstrings. `make docs` builds it."""

import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

import isthmus

project = "isthmus"
author = "The isthmus authors"
copyright = "The isthmus authors, Apache-2.0"
release = version = isthmus.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "**/README.md"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# Two classes may share a name; autodoc then links neither.
suppress_warnings = ["ref.python"]

html_theme = "furo"
html_title = "isthmus"
html_show_sourcelink = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
# In docstrings as in Markdown: one backtick is code.
default_role = "code"
smartquotes = False

PACKAGES = {
    "": "The package, errors, OER",
    "ilp": "Interledger packets",
    "connector": "Connector core",
    "stream": "STREAM",
    "links": "Links between peers",
    "journal": "Journal",
    "settlement": "Settlement engines",
    "ledgers": "Ledgers",
    "runtime": "Runtime",
    "client": "Wallet and client",
    "apps": "Payment pointers and SPSP",
    "node": "Node",
}


def write_api_pages(app: Sphinx) -> None:
    """One page for each package, with all modules in it, so that none is forgotten."""
    root = Path(isthmus.__file__).parent
    folder = Path(app.srcdir) / "api"
    folder.mkdir(exist_ok=True)
    for package, title in PACKAGES.items():
        parts = [f"# {title}\n"]
        paths = sorted(root.glob("*.py")) if not package else sorted((root / package).rglob("*.py"))
        for path in paths:
            names = path.relative_to(root.parent).with_suffix("").parts
            if names[-1] == "__main__" or (names[-1] == "__init__" and not _says_something(path)):
                continue
            module = ".".join(name for name in names if name != "__init__")
            parts.append(f"## {module}\n\n```{{eval-rst}}\n.. automodule:: {module}\n   :members:\n```\n")
        text = "\n".join(parts)
        page = folder / f"{package or 'isthmus'}.md"
        if not page.exists() or page.read_text() != text:
            page.write_text(text)


def _says_something(path: Path) -> bool:
    return len(path.read_text().strip()) > 0


def plain_docstring(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Docstrings are plain text with code in backticks: nothing else in them is mark-up."""
    paragraphs: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            paragraphs[-1].append(line)
        elif paragraphs[-1]:
            paragraphs.append([])
    lines.clear()
    for paragraph in paragraphs:
        if paragraph and all(line.startswith("    ") for line in paragraph):
            lines += ["::", "", *paragraph, ""]
            continue
        is_prose = all(not line.startswith(" ") and not line.startswith(("- ", "* ")) for line in paragraph)
        # What is laid out by hand keeps its lines.
        lines += [_escape(line) if is_prose else f"| {_escape(line)}" for line in paragraph]
        lines.append("")


def _escape(text: str) -> str:
    parts = re.split(r"(`[^`]+`)", text)
    for index in range(0, len(parts), 2):
        parts[index] = re.sub(r"([\\*|`_])", r"\\\1", parts[index])
    for index in range(1, len(parts), 2):
        parts[index] = f"``{parts[index].strip('`')}``"
        # Inline literals must be set off from the letters around them.
        if re.match(r"\w", parts[index + 1]):
            parts[index + 1] = "\\ " + parts[index + 1]
        if re.search(r"\w$", parts[index - 1]):
            parts[index - 1] += "\\ "
    return "".join(parts)


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("builder-inited", write_api_pages)
    app.connect("autodoc-process-docstring", plain_docstring)
    return {"parallel_read_safe": True}
