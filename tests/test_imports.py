"""Who may import whom: the library has one direction, and what the Snakefile imports of it has no torch."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "workflow" / "scripts"
LIBRARY = SCRIPTS / "valleys"
MAY_IMPORT = {
    "errors": "",
    "lazy": "",
    "options": "errors",
    "torchvision_compat": "errors",
    "asymmetry": "errors lazy",
    "storage": "errors",
    "factories": "errors torchvision_compat",
    "simulations": "errors asymmetry",
    "data": "errors lazy options torchvision_compat storage factories",
    "networks": "errors factories data",
    "models": "errors lazy options torchvision_compat storage factories data networks",
    "training": "errors storage data networks models",
    "execution": "errors storage data",
    "landscape": "errors lazy asymmetry storage factories data networks models training",
    "config": "errors storage factories data.options data.tasks models.options landscape.kinds",
    "costs": "errors storage factories execution.snakemake_internals config data.options data.tasks"
    " data.counts data.presence models landscape.kinds",
    "results": "errors asymmetry storage config",
    "claims": "errors lazy asymmetry config results",
    "figures": "errors lazy storage config results",
    "report": "errors storage config results figures",
    "api": "errors lazy asymmetry storage factories data networks models training landscape",
    "cli": "*",
    "__main__": "cli",
    "__init__": "*",
}
LONGEST = 500


def modules():
    """Every module of the library by its name within it."""
    return {".".join(path.relative_to(LIBRARY).with_suffix("").parts): path for path in LIBRARY.rglob("*.py")}


def imported(path, known):
    """Names, within the library, of the modules that a file imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports are written in full"
            base = (node.module or "").split(".")
            for alias in node.names:
                whole = [*base, alias.name]
                is_module = ".".join(whole[1:]) in known or ".".join([*whole[1:], "__init__"]) in known
                found.add(tuple(whole if is_module else base))
        elif isinstance(node, ast.Import):
            found |= {tuple(alias.name.split(".")) for alias in node.names}
    return {".".join(parts[1:]) for parts in found if parts[0] == "valleys" and parts[1:]}


def test_a_module_imports_only_what_stands_below_it():
    known, wrong = modules(), []
    for name, path in known.items():
        package = name.partition(".")[0]
        allowed = set(MAY_IMPORT[package].split())
        for other in imported(path, known):
            below = other.partition(".")[0]
            if below != package and not {"*", below, other} & allowed:
                wrong.append(f"{name} imports {other}")
    assert not wrong


def test_the_table_has_every_package_and_no_circle():
    assert {name.partition(".")[0] for name in modules()} == set(MAY_IMPORT)
    order = list(MAY_IMPORT)  # each stands after what it may import
    for place, (package, allowed) in enumerate(MAY_IMPORT.items()):
        for other in allowed.split():
            assert other == "*" or order.index(other.partition(".")[0]) < place, (package, other)


def test_a_module_says_what_it_is_for_and_can_be_read_in_one_go():
    texts = {name: path.read_text(encoding="utf-8") for name, path in modules().items()}
    said = {
        name: (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0] for name, text in texts.items()
    }
    assert not [name for name, line in said.items() if len(line) < 20]
    assert not {name: n for name, text in texts.items() if (n := len(text.splitlines())) > LONGEST}


def test_no_two_modules_of_a_package_import_each_other():
    """Of modules that import each other, which is imported first decides whether it works."""
    known = modules()
    above = {name: {o for o in imported(path, known) if o in known} for name, path in known.items()}
    while free := {name for name, others in above.items() if not others & above.keys()}:
        for name in free:
            del above[name]
    assert not above


@pytest.mark.parametrize("package", ["asymmetry", "data", "landscape", "models"])
def test_public_names_of_a_package_are_there_and_none_is_a_modules(package):
    """A name that a module has too would be the module once that is imported."""
    door = importlib.import_module(f"valleys.{package}")
    tree = ast.parse((LIBRARY / package / "__init__.py").read_text(encoding="utf-8"))
    typed = {a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names} - {"names_of"}
    assert set(door.__all__) == typed - {"TYPE_CHECKING"}
    assert not set(door.__all__) & {path.stem for path in (LIBRARY / package).iterdir()}
    assert all(getattr(door, name) is not None for name in door.__all__)


def test_what_the_snakefile_imports_needs_no_torch():
    rules = "".join(path.read_text(encoding="utf-8") for path in SCRIPTS.parent.glob("rules/*.smk"))
    lines = [line for line in rules.splitlines() if line.startswith("from valleys")]
    assert len(lines) > 3
    code = "\n".join([*lines, "import sys", "sys.exit('torch' in sys.modules)"])
    assert subprocess.run([sys.executable, "-c", code], cwd=SCRIPTS).returncode == 0
