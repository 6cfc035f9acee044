"""What the site has beside the pages of this folder; mkdocs calls these functions (`mkdocs.yml`).

Pages made from code, and pages that stand elsewhere in the repository, are added when the site is built.
A link to another file of the repository becomes its path, since the site does not have that file.
Formulas become MathML, which browsers draw without a script.
"""

from __future__ import annotations

import html
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs" / "reference"))

import write  # noqa: E402

#: Where a page of the repository stands in the site.
ELSEWHERE = {
    "config/README.md": "reference/config.md",
    "benchmarks/README.md": "benchmarks.md",
    "examples/README.md": "examples.md",
    "CONTRIBUTING.md": "contributing.md",
}
MADE = {"reference/tables.md": write.tables, "reference/commands.md": write.command_help}
#: Files whose contents are a page of the site.
INSTEAD = ELSEWHERE | {"workflow/schemas/tables.yaml": "reference/tables.md"}
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
_TAG = re.compile(r"\\tag\{(\w+)\}")  # the number of a formula
_LINK = re.compile(r"\[([^\]]*)\]\(([^)#:\s]+)(#[^)\s]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are not in this folder."""
    for path, page in ELSEWHERE.items():
        text = (ROOT / path).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=moved(text, path, page)))
    for page, make in MADE.items():
        files.append(File.generated(config, page, content=make()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turn links that leave this folder into links of the site, or into paths."""
    source = page.file.src_uri
    made = source in ELSEWHERE.values() or source in MADE
    return markdown if made else moved(markdown, f"docs/{source}", source)


def on_page_content(page_html: str, page: Any, config: Any, files: Any) -> str:
    """Turn formulas into MathML."""

    def formula(match: re.Match[str]) -> str:
        text = _TAG.sub(r"\\qquad (\1)", html.unescape(match[3]))
        return convert(text, display="block" if match[2] == "[" else "inline")

    return _FORMULA.sub(formula, page_html)


def moved(text: str, path: str, page: str) -> str:
    """Return a page's text with its links as the site has them.

    Parameters
    ----------
    path
        Where the page stands in the repository.
    page
        Where it stands in the site.
    """

    def link(match: re.Match[str]) -> str:
        words, to, anchor = match[1], match[2], match[3] or ""
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), to))
        if target in INSTEAD:
            target = INSTEAD[target]
        elif target.startswith("docs/"):
            target = target.removeprefix("docs/")
        else:
            return words if "`" in words else f"{words} (`{target}`)"
        return f"[{words}]({posixpath.relpath(target, posixpath.dirname(page) or '.')}{anchor})"

    return _LINK.sub(link, text)
