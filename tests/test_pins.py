"""The pins agree wherever they stand."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
DEVELOPMENT = {"pytest", "pytest-xdist", "ruff", "snakefmt"}
NOT_IN_JOBS = {*DEVELOPMENT, "tqdm"}


def names(path):
    lines = [line.split("#")[0].strip() for line in path.read_text().splitlines()]
    return {re.split("[=<>]", line)[0].lower() for line in lines if line}


def pins():
    lines = [
        line for line in (ROOT / "requirements.txt").read_text().splitlines() if line[:1] not in ("", "#")
    ]
    return dict(line.lower().split("==") for line in lines)


def test_every_requirement_is_pinned_to_one_version():
    assert names(ROOT / "requirements.in") <= set(pins())
    assert all(re.fullmatch(r"[0-9][0-9a-z.]*", version) for version in pins().values())


def test_conda_environment_has_the_same_pins():
    environment = yaml.safe_load((ROOT / "workflow" / "envs" / "valleys.yaml").read_text())
    listed = dict(line.lower().split("==") for line in environment["dependencies"][-1]["pip"])
    assert listed == {name: pins()[name] for name in names(ROOT / "requirements.in") - NOT_IN_JOBS}


def test_what_is_installed_is_what_is_pinned():
    from importlib.metadata import version

    for name in names(ROOT / "requirements.in"):
        assert version(name).split("+")[0] == pins()[name], f"{name}: run make lock, or reinstall"
