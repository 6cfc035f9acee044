"""Scripts of rules: thin, and each says what comes in and what goes out."""

import ast
import re

import pytest
from conftest import ROOT

SCRIPTS = sorted((ROOT / "workflow" / "scripts").glob("*.py"))
LONGEST = 39


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_short_and_says_what_it_reads_and_writes(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST, "what a notebook would want of it belongs into the library"
    said = ast.get_docstring(ast.parse(text)) or ""
    rules = "".join(smk.read_text(encoding="utf-8") for smk in (ROOT / "workflow" / "rules").glob("*.smk"))
    head = r"^(?:rule|checkpoint) "
    (rule,) = re.findall(rf"{head}(?:(?!{head}).)*?scripts/{path.name}\"", rules, re.MULTILINE | re.DOTALL)
    assert re.search(r"\bOut:\s", said)
    assert bool(re.search(r"\bIn:\s", said)) == bool(re.search(r"^    input:", rule, re.MULTILINE))
