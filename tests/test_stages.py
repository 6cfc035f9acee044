"""A stage whose code has changed must have had its version looked at.

Snakemake does not see changes in the library that a rule's script imports. Each stage therefore has a version
in its params (valleys.stages). This test keeps a hash of the code each stage uses, docstrings and comments
left out; when one differs, either raise the stage's version (its results change: it and all downstream are
remade) or leave it (they do not), and then record the new hash with ``make stamp``.
"""

import ast
import hashlib
import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "workflow" / "scripts"
RECORD = Path(__file__).with_name("stage_hashes.json")
# Reports progress, checks, or only reads: no part in results.
NO_PART = {"errors", "jobs", "stages", "config", "__init__", "__main__"}


def imported(path):
    """Names of the library modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "valleys":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("valleys."):
            found.add(node.module.split(".")[1])
    return {name for name in found if (SCRIPTS / "valleys" / f"{name}.py").exists()} - NO_PART


def modules_of(stage):
    """The modules a stage uses, found by following imports from its script."""
    found, todo = set(), imported(SCRIPTS / f"{stage}.py")
    while todo:
        name = todo.pop()
        found.add(name)
        todo |= imported(SCRIPTS / "valleys" / f"{name}.py") - found
    return sorted(found)


def code(path):
    """A file's syntax tree without docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and ast.get_docstring(node) is not None
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)


def stage_hash(stage):
    files = [SCRIPTS / f"{stage}.py", *(SCRIPTS / "valleys" / f"{name}.py" for name in modules_of(stage))]
    return hashlib.sha256("\n".join(code(path) for path in files).encode()).hexdigest()[:16]


def present():
    from valleys.stages import VERSIONS

    return {stage: {"version": version, "code": stage_hash(stage)} for stage, version in VERSIONS.items()}


def test_every_stage_has_a_script_and_a_version():
    from valleys.stages import VERSIONS

    scripts = {path.stem for path in SCRIPTS.glob("*.py")}
    assert scripts == set(VERSIONS)


def test_imports_are_followed():
    assert {"sgd", "data", "losses", "files", "models"} <= set(modules_of("train_sgd"))
    assert "sgd" not in modules_of("detect")
    assert "figures" not in modules_of("train_sgd")


def test_no_stage_changed_unnoticed():
    recorded = json.loads(RECORD.read_text())
    if recorded["python"] != list(sys.version_info[:2]):
        import pytest

        pytest.skip(
            f"hashes were recorded by Python {recorded['python']}: syntax trees differ between versions"
        )
    changed = [stage for stage, now in present().items() if recorded["stages"].get(stage) != now]
    assert not changed, (
        f"code of {', '.join(changed)} changed: raise VERSIONS in valleys/stages.py for those whose results "
        "change, then run 'make stamp'"
    )


if __name__ == "__main__" and "--write" in sys.argv:
    record = {"python": list(sys.version_info[:2]), "stages": present()}
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    print(f"recorded {len(record['stages'])} stages in {RECORD}")
