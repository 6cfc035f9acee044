"""The pins agree wherever they stand, are hashed, and are what the two commands install."""

import importlib
import itertools
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from valleys.data.sources import decoding, load
from valleys.errors import ValleysError
from valleys.models import checkpoints
from valleys.storage import tables
from valleys.storage.state import LEAST, load_checkpoint, require

ROOT = Path(__file__).parents[2]
NOTEBOOKS = {"nbclient", "ipykernel", "appnope"}
DEVELOPMENT = {"hypothesis", "pytest", "pytest-xdist", "ruff", "snakefmt", "transformers", *NOTEBOOKS}
NOT_IN_JOBS = {*DEVELOPMENT, "plotly", "tqdm"}
LOCKS = ("requirements.txt", "requirements-torch.txt")


def names(path):
    lines = [line.split("#")[0].strip() for line in path.read_text().splitlines()]
    return {re.split("[=<>]", line)[0].lower() for line in lines if line}


def entries(lock):
    """The requirements of a lock file, each with its hashes on one line."""
    text = (ROOT / lock).read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line[:1] not in ("", "#")]


def pins():
    return dict(line.split()[0].lower().split("==") for lock in LOCKS for line in entries(lock))


def test_every_requirement_is_pinned_to_one_version():
    assert names(ROOT / "requirements.in") <= set(pins())
    assert all(re.fullmatch(r"[0-9][0-9a-z.]*", version) for version in pins().values())


def test_conda_environment_has_the_same_pins():
    ours, _, _ = (ROOT / "workflow/envs/valleys.yaml").read_text().partition("# Your own packages")
    environment = yaml.safe_load(ours)
    listed = dict(line.lower().split("==") for line in environment["dependencies"][-1]["pip"])
    assert listed == {name: pins()[name] for name in names(ROOT / "requirements.in") - NOT_IN_JOBS}


def test_packages_of_ones_own_stand_after_the_pins():
    """The container's line is a comment that names one; the list of conda's goes on below its own."""
    text = (
        ROOT / "workflow/envs/valleys.yaml"
    ).read_text() + "      - timm==1.0.19\n      - /home/me/mypkg\n"
    *_, timm, mine = yaml.safe_load(text)["dependencies"][-1]["pip"]
    assert (timm, mine) == ("timm==1.0.19", "/home/me/mypkg")
    _, steps = (ROOT / "workflow/envs/valleys.def").read_text().split("%post\n")
    commands = [line.strip() for line in steps.splitlines()]
    (own,) = [line for line in commands if line.startswith("# pip install ")]
    assert commands[-1] == own
    assert all(command.startswith(own[2:].partition(" timm")[0]) for command in commands[:-2])


def test_what_is_installed_is_what_is_pinned():
    from importlib.metadata import version

    for name in names(ROOT / "requirements.in"):
        assert version(name).split("+")[0] == pins()[name], f"{name}: run make lock, or reinstall"


def test_all_but_torch_is_pinned_by_its_hashes():
    for entry in entries("requirements.txt"):
        pin, *hashes = entry.split()
        assert re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9A-Za-z.]*", pin), entry
        assert hashes, f"{pin} has no hash: run make lock"
        assert all(re.fullmatch("--hash=sha256:[0-9a-f]{64}", word) for word in hashes), entry
    assert [entry.split("==")[0] for entry in entries("requirements-torch.txt")] == ["torch"]
    assert "torch" not in {entry.split("==")[0] for entry in entries("requirements.txt")}


def test_lock_files_name_no_index():
    """An install takes the packages from wherever its pip is set to; the hashes say which."""
    for lock in LOCKS:
        assert "://" not in (ROOT / lock).read_text()
        assert not re.search(r"^\s*-", "\n".join(entries(lock)), re.M)


def make(folder, *words, python):
    environment = {**os.environ, "LOG": str(folder / "log")}
    return subprocess.run(
        ["make", f"PYTHON={python}", *words], cwd=folder, env=environment, capture_output=True, text=True
    )


@pytest.fixture
def copy(tmp_path):
    """A folder with the Makefile and the lock files, and a Python that notes what it is asked for."""
    for name in ("Makefile", *LOCKS):
        (tmp_path / name).write_text((ROOT / name).read_text())
    stub = tmp_path / "python"
    stub.write_text(
        "#!/bin/sh\n"
        'if [ "$1" = -c ]; then echo cpython 3 11; exit 0; fi\n'
        'echo "$@" >> "$LOG"\n'
        'if [ "$2" = venv ]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; cp "$0" "$3/bin/pytest"; fi\n'
        'case "$*" in *"$FAIL_AT"*) [ -n "$FAIL_AT" ] && exit 1;; esac\n'
        "exit 0\n"
    )
    stub.chmod(0o755)
    return tmp_path


def installed(copy):
    """What pip was asked to install, one after the other."""
    lines = (copy / "log").read_text().splitlines()
    return [line.split("install ")[1] for line in lines if "pip" in line and "install" in line]


def own(copy):
    """A package of the user's in the environment."""
    return copy / ".venv" / "timm"


def change_locks(copy):
    """Make the lock files newer than the environment."""
    stamp = (copy / ".venv" / ".installed").stat().st_mtime
    for lock in LOCKS:
        os.utime(copy / lock, (stamp + 5, stamp + 5))


def finished(copy):
    """Whether the next make has nothing to install."""
    for lock in LOCKS:
        os.utime(copy / lock, (1, 1))
    before = installed(copy)
    assert make(copy, "test", python=copy / "python").returncode == 0
    return installed(copy) == before


BOTH = ["--quiet --no-deps --require-hashes -r requirements.txt", "--quiet -r requirements-torch.txt"]


def test_the_commands_of_the_readme_install_the_locks(copy):
    readme = (ROOT / "README.md").read_text()
    assert "\nmake run " in readme
    assert "\nmake test " in readme
    rules = (ROOT / "Makefile").read_text()
    assert re.search(r"^run: \$\(STAMP\)", rules, re.M)
    assert make(copy, "test", python=copy / "python").returncode == 0
    assert installed(copy) == BOTH
    assert make(copy, "test", python=copy / "python").returncode == 0  # and once only
    assert installed(copy) == BOTH


STEPS = ["--require-hashes", "requirements-torch", " check", "-m venv"]


@pytest.mark.parametrize("step", STEPS)
def test_a_first_installation_that_was_interrupted_starts_over(copy, monkeypatch, step):
    monkeypatch.setenv("FAIL_AT", step)
    assert make(copy, "test", python=copy / "python").returncode != 0
    assert not (copy / ".venv" / ".installed").exists()
    (copy / ".venv").mkdir(exist_ok=True)
    (copy / ".venv" / "half").write_text("left by the first")
    monkeypatch.delenv("FAIL_AT")
    assert make(copy, "test", python=copy / "python").returncode == 0
    assert not (copy / ".venv" / "half").exists()
    assert finished(copy)


@pytest.mark.parametrize("lock", LOCKS)
def test_a_changed_lock_is_installed_and_keeps_the_users_packages(copy, lock):
    assert make(copy, "test", python=copy / "python").returncode == 0
    own(copy).write_text("of the user's")
    stamp = (copy / ".venv" / ".installed").stat().st_mtime
    os.utime(copy / lock, (stamp + 5, stamp + 5))
    assert make(copy, "test", python=copy / "python").returncode == 0
    assert installed(copy) == 2 * BOTH
    assert own(copy).exists()
    assert finished(copy)


@pytest.mark.parametrize("step", STEPS[:2])
def test_a_later_installation_that_was_interrupted_is_done_again_in_full(copy, monkeypatch, step):
    """pip takes a package for installed that lacks files, so each is written again, over what is there."""
    assert make(copy, "test", python=copy / "python").returncode == 0
    own(copy).write_text("of the user's")
    change_locks(copy)
    monkeypatch.setenv("FAIL_AT", step)
    assert make(copy, "test", python=copy / "python").returncode != 0
    assert make(copy, "test", python=copy / "python").returncode != 0
    monkeypatch.delenv("FAIL_AT")
    before = len(installed(copy))
    assert make(copy, "test", python=copy / "python").returncode == 0
    again = [line.replace("--no-deps", "--no-deps --ignore-installed") for line in BOTH[:1]]
    again += ["--quiet --no-deps --ignore-installed -r requirements-torch.txt"]
    assert installed(copy)[before:] == [*BOTH, *again, *BOTH]
    assert own(copy).exists()
    assert finished(copy)
    change_locks(copy)
    before = len(installed(copy))
    assert make(copy, "test", python=copy / "python").returncode == 0
    assert installed(copy)[before:] == BOTH


def test_another_python_or_a_broken_environment_starts_over(copy, monkeypatch):
    for break_it in (
        lambda: (copy / ".venv" / "bin" / "python").unlink(),
        lambda: (copy / ".venv" / "bin" / "python").write_text("#!/bin/sh\nexit 1\n"),
        lambda: (copy / ".venv" / "bin" / "python").write_text("#!/bin/sh\necho cpython 3 10\n"),
        lambda: (copy / ".venv" / "bin" / "python").write_text(  # without pip
            '#!/bin/sh\n[ "$1" = -c ] && echo cpython 3 11 || exit 1\n'
        ),
    ):
        assert make(copy, "test", python=copy / "python").returncode == 0
        own(copy).write_text("of the user's")
        change_locks(copy)
        break_it()
        assert make(copy, "test", python=copy / "python").returncode == 0
        assert not own(copy).exists()
        for lock in LOCKS:
            os.utime(copy / lock, (1, 1))


def test_packages_of_the_users_that_do_not_fit_are_told_and_stop_nothing(copy, monkeypatch):
    """In a new environment it is the lock that does not fit (see above)."""
    assert make(copy, "test", python=copy / "python").returncode == 0
    change_locks(copy)
    monkeypatch.setenv("FAIL_AT", " check")
    done = make(copy, "test", python=copy / "python")
    assert done.returncode == 0
    assert "warning: packages in .venv that are not of the requirements do not fit them" in done.stdout
    assert finished(copy)


@pytest.mark.parametrize("given", [None, "", "mine", "/a/b:c d"])
@pytest.mark.parametrize("words", [["plan"], ["data"], ["compare", "A=x", "B=y"], ["run"], ["stamp"]])
def test_commands_of_the_library_keep_the_users_pythonpath(copy, monkeypatch, given, words):
    """Factories may be there; an empty entry would be the folder of the run."""
    assert make(copy, "test", python=copy / "python").returncode == 0
    stub = '#!/bin/sh\necho "$PYTHONPATH" > path\n'
    for name in ("python", "snakemake"):
        path = copy / ".venv" / "bin" / name
        path.write_text(stub)
        path.chmod(0o755)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if given is not None:
        monkeypatch.setenv("PYTHONPATH", given)
    done = make(copy, *words, python=copy / "python")
    assert done.returncode == 0, done.stderr
    assert (copy / "path").read_text().strip() == ":".join(filter(None, ["workflow/scripts", given]))


# --- lower bounds ---


def bounds():
    """The lower bounds of pyproject.toml, by package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = itertools.chain(project["dependencies"], *project["optional-dependencies"].values())
    pairs = (line.split(">=") for line in asked if ">=" in line)
    return {name.strip(): version for name, version in pairs}


def numbers(version):
    return [int(part) for part in version.split(".")]


def test_what_promises_rest_on_has_a_lower_bound():
    """They are one list; the pins are above it, and requirements.in says the same where it pins nothing."""
    found = bounds()
    least = {{"PIL": "pillow"}.get(name, name): version for name, (version, _) in LEAST.items()}
    assert least.items() <= found.items()
    assert {"torch", "pyarrow", "pillow", "safetensors", "jinja2", "pyyaml"} <= set(found)
    for name, version in found.items():
        assert numbers(pins()[name]) >= numbers(version), name
    text = (ROOT / "requirements.in").read_text()
    unpinned = dict(re.findall(r"^([a-z]+)>=(\S+)", text, re.M))
    assert unpinned == {name: version for name, version in found.items() if name in unpinned}
    assert set(least) - {"torch"} <= set(unpinned)


@pytest.mark.parametrize(
    ("package", "version", "refused"),
    [
        ("torch", "2.5.1+cu121", True),
        ("torch", "1.13.0", True),
        ("torch", "2.6.0", False),
        ("torch", "2.6.0a0+git1234", False),
        ("torch", "2.10.0+cpu", False),
        ("pyarrow", "14.0.0", True),
        ("pyarrow", "9.0.0", True),
        ("pyarrow", "14.0.1", False),
        ("pyarrow", "14.0.1.dev3", False),
        ("PIL", "9.5.0", True),
        ("PIL", "10.3.0", False),
        ("PIL", "10.3.0.post1", False),
    ],
)
def test_an_older_package_opens_no_file_from_elsewhere(tmp_path, monkeypatch, package, version, refused):
    """One line, before a byte of the file is looked at."""
    monkeypatch.setattr(importlib.import_module(package), "__version__", version)
    if not refused:
        return require(package)
    name = {"PIL": "pillow"}.get(package, package)
    line = re.escape(f"{name} {version} is installed, with which ") + f".*install {name} >= "
    with pytest.raises(ValleysError, match=line):
        require(package)
    path = tmp_path / "file"
    path.write_bytes(b"\x80whatever")  # begins as a pickle does
    doors = {
        "torch": [lambda: checkpoints.read(path), lambda: load_checkpoint(path)],
        "pyarrow": [
            lambda: tables.read(path, "curves"),
            lambda: load.load_source({"source": "parquet", "train": str(path), "test": str(path)}),
        ],
        "PIL": [lambda: decoding._decode(b"whatever", "x", None, False)],
    }
    for door in doors[package]:
        with pytest.raises(ValleysError, match=line) as caught:
            door()
        assert "\n" not in str(caught.value)
    return None


def test_there_is_a_licence():
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")
