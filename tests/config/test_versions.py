"""A stage whose code has changed must have had its version looked at.

Snakemake does not see changes in the library that a rule's script imports. Each stage therefore has a version
in its params (config/versions.py). This test keeps a hash of the code each stage uses, docstrings and
comments left out; when one differs, either raise the stage's version (its results change: it and all
downstream are remade) or leave it (they do not), and then record the new hash with ``make stamp``.
"""

import ast
import hashlib
import json
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "workflow" / "scripts"
RECORD = Path(__file__).with_name("stage_hashes.json")
# Reports progress, checks, or only reads: no part in results.
NO_PART = {"errors", "jobs", "stages", "config", "__main__"}


def library(scripts):
    """The library's modules by name, those of packages with a dot: ``figures`` is its ``__init__.py``."""
    top = scripts / "valleys"
    named = {path.relative_to(top).with_suffix("").parts: path for path in top.rglob("*.py")}
    named = {parts[:-1] if parts[-1] == "__init__" else parts: path for parts, path in named.items()}
    return {".".join(parts): path for parts, path in named.items() if parts}


def imported(path, scripts=None):
    """Names of the library modules that a file imports, anywhere in it.

    An import of a package's module runs the package's ``__init__.py`` too.
    """
    scripts = scripts or SCRIPTS
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
            # A module imported by its name, f"valleys.data.sources.{reader}": any of the package's may be it.
            start = str(node.values[0].value).removeprefix("valleys.")
            if start != node.values[0].value and start.endswith("."):
                names |= {f"valleys.{name}" for name in library(scripts) if name.startswith(start)}
        elif isinstance(node, ast.ImportFrom):
            # `from .x import y` begins at the file's own folder, each further dot one above.
            above = path.relative_to(scripts).parts[: -node.level] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    parts = [name.split(".")[1:] for name in names if name.startswith("valleys.")]
    found = {".".join(p[:n]) for p in parts for n in range(1, len(p) + 1)}
    return found & set(library(scripts)) - NO_PART


def modules_of(stage, scripts=None):
    """The modules a stage uses, found by following imports from its script."""
    scripts = scripts or SCRIPTS
    paths = library(scripts)
    found, todo = set(), imported(scripts / f"{stage}.py", scripts)
    while todo:
        name = todo.pop()
        found.add(name)
        todo |= imported(paths[name], scripts) - found
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


def stage_hash(stage, scripts=None):
    scripts = scripts or SCRIPTS
    paths = library(scripts)
    files = [scripts / f"{stage}.py", *(paths[name] for name in modules_of(stage, scripts))]
    return hashlib.sha256("\n".join(code(path) for path in files).encode()).hexdigest()[:16]


def present():
    from valleys.config.versions import VERSIONS

    return {stage: {"version": version, "code": stage_hash(stage)} for stage, version in VERSIONS.items()}


def test_every_stage_has_a_script_and_a_version():
    from valleys.config.versions import VERSIONS

    scripts = {path.stem for path in SCRIPTS.glob("*.py")}
    assert scripts == set(VERSIONS)


def test_imports_are_followed():
    assert {"sgd", "data", "losses", "files", "models"} <= set(modules_of("train_sgd"))
    assert "sgd" not in modules_of("detect")
    assert "figures" not in modules_of("train_sgd")


def test_a_reader_of_data_that_its_entry_names_is_followed():
    assert "data.sources.digits" in modules_of("prepare_dataset")


@pytest.mark.parametrize(
    ("stage", "package"), [("claims", "claims"), ("figures", "figures"), ("report", "figures")]
)
def test_imports_are_followed_into_packages(stage, package):
    own = {name for name in library(SCRIPTS) if f"{name}.".startswith(f"{package}.")}
    assert len(own) > 10
    assert own <= set(modules_of(stage))
    assert not own & set(modules_of("detect"))


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("from valleys import one", {"one"}),
        ("from valleys import many", {"many"}),
        ("from valleys.many import value", {"many"}),
        ("from valleys.many import deep", {"many", "many.deep"}),
        ("from valleys.many.deep import value", {"many", "many.deep"}),
        ("import valleys.many.deep", {"many", "many.deep"}),
        ("import valleys.one as other, json", {"one"}),
        ("from .one import value", {"one"}),
        ("from . import one", {"one"}),
        ("from .many.deep import value", {"many", "many.deep"}),
        ("def late():\n    from valleys.many import deep", {"many", "many.deep"}),
        ("from valleys import errors", set()),
        ("import json\nfrom many import deep", set()),
        ('import_module(f"valleys.many.{name}")', {"many.deep"}),
        ('print(f"valleys is {name}")', set()),
    ],
)
def test_every_way_to_import_is_followed(line, found, tmp_path):
    write_library(tmp_path)
    path = tmp_path / "valleys" / "user.py"
    path.write_text(line + "\n")
    assert imported(path, tmp_path) == found


def test_imports_within_a_package_are_followed(tmp_path):
    write_library(tmp_path)
    (tmp_path / "valleys" / "many" / "deep.py").write_text("from . import beside\nfrom ..one import value\n")
    (tmp_path / "valleys" / "many" / "beside.py").write_text("")
    (tmp_path / "work.py").write_text("from valleys.many import deep\n")
    assert modules_of("work", tmp_path) == ["many", "many.beside", "many.deep", "one"]


@pytest.mark.parametrize("stage", ["claims", "figures"])
def test_a_change_of_any_file_of_a_package_is_seen(stage, tmp_path):
    scripts = Path(shutil.copytree(SCRIPTS, tmp_path / "scripts"))
    files = [path for path in library(scripts).values() if path.parent.name == stage]
    seen = {stage_hash(stage, scripts)}
    apart = stage_hash("detect", scripts)
    for path in files:
        path.write_text(path.read_text(encoding="utf-8") + "\nCHANGED = True\n", encoding="utf-8")
        seen.add(stage_hash(stage, scripts))
    assert len(seen) == len(files) + 1
    assert stage_hash("detect", scripts) == apart


def write_library(folder):
    """A library of a module, a package with one, and what has no part in results."""
    for name in ("one", "errors", "many/__init__", "many/deep"):
        path = folder / "valleys" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("value = 1\n")


def test_no_stage_changed_unnoticed():
    recorded = json.loads(RECORD.read_text())
    if recorded["python"] != list(sys.version_info[:2]):
        pytest.skip(
            f"hashes were recorded by Python {recorded['python']}: syntax trees differ between versions"
        )
    changed = [stage for stage, now in present().items() if recorded["stages"].get(stage) != now]
    assert not changed, (
        f"code of {', '.join(changed)} changed: raise VERSIONS in config/versions.py for those whose results "
        "change, then run 'make stamp'"
    )


if __name__ == "__main__" and "--write" in sys.argv:
    record = {"python": list(sys.version_info[:2]), "stages": present()}
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    print(f"recorded {len(record['stages'])} stages in {RECORD}")
