"""Files about the project: citation, catalog, container, the map of the code."""

import re
from pathlib import Path

import pytest
import valleys
import yaml
from conftest import fill_defaults

ROOT = Path(__file__).parents[1]


def test_the_citation_is_of_this_version_and_names_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    # What the format requires (version 1.2.0), of the software and of each reference.
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    assert str(citation["version"]) == valleys.__version__
    for work in [citation, *citation["references"]]:
        assert work["title"]
        assert all("name" in author or "family-names" in author for author in work["authors"])
    paper = citation["references"][0]
    assert paper["type"] == "conference-paper"
    assert paper["title"] == "Asymmetric Valleys: Beyond Sharp and Flat Local Minima"
    assert [author["family-names"] for author in paper["authors"]] == ["He", "Huang", "Yuan"]
    assert paper["year"] == 2019


def test_the_catalog_says_what_rules_have():
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert set(usage) == {"mandatory-flags", "software-stack-deployment", "report"}
    assert set(usage["mandatory-flags"]) == {"desc", "flags"}
    assert usage["software-stack-deployment"] == {"conda": True, "apptainer": True}
    rules = "".join(path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk"))
    assert rules.count("script:") == rules.count('conda:\n        "../envs/valleys.yaml"')
    assert re.search(r"^container:", (ROOT / "Snakefile").read_text(), re.M)


def test_the_container_has_the_pins_and_the_python_of_the_environment():
    definition = (ROOT / "workflow" / "envs" / "valleys.def").read_text()
    for lock, options in (
        ("requirements.txt", "--no-deps --require-hashes "),
        ("requirements-torch.txt", ""),
    ):
        assert f"--disable-pip-version-check {options}-r /opt/{lock}" in definition
        assert f"{lock} /opt/{lock}" in definition
    environment = yaml.safe_load((ROOT / "workflow" / "envs" / "valleys.yaml").read_text())
    (python,) = [line for line in environment["dependencies"] if str(line).startswith("python=")]
    assert f"From: python:{python.removeprefix('python=')}-" in definition


def test_the_changelog_has_this_version():
    assert f"## {valleys.__version__}" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda path: path.name)
def test_every_config_is_described(path):
    assert f"`{path.name}`" in (ROOT / "config" / "README.md").read_text()


def test_the_smallest_config_is_one():
    block = re.search(r"```yaml\n(.*?)```", (ROOT / "config" / "README.md").read_text(), re.S)[1]
    from valleys.config.experiment import Experiment

    assert len(Experiment(fill_defaults(yaml.safe_load(block))).cells) == 6


FOLDERS = [
    path for path in ROOT.iterdir() if path.is_dir() and path.name[0] != "." and path.name != "results"
]
DOCUMENTS = [*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in folder.rglob("*.md"))]
# What can only be a file of this repository.
PATH = (
    r"(?<![\w/.<>*{}-])"
    r"((?:tests|docs|workflow|valleys|config|profiles|benchmarks|scripts)/[\w/.-]+\.%s\b)"
)


@pytest.fixture(scope="module")
def files():
    """All files of the repository by their paths from its root, each after a slash."""
    found = [path for folder in FOLDERS for path in folder.rglob("*.*")]
    return [f"/{path.relative_to(ROOT)}" for path in found]


def anchors(path):
    """The anchors that GitHub and the site give a page's headings."""
    heads = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads]
    return {*plain, *(re.sub(r"-+", "-", anchor) for anchor in plain)}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_a_document_names_are_there(path, files):
    text = path.read_text(encoding="utf-8")
    for link, anchor in re.findall(
        r"\]\(([^)#\s:]*)(#[^)\s]*)?\)", re.sub(r"```.*?```", "", text, flags=re.S)
    ):
        target = path.parent / link if link else path
        assert target.exists(), link
        assert not anchor or target.suffix != ".md" or anchor[1:] in anchors(target), f"{link}{anchor}"
    named = re.findall(r"`([\w./-]+\.(?:py|smk))`", text) + re.findall(PATH % r"\w+", text)
    assert not [name for name in named if not any(file.endswith(f"/{name}") for file in files)]


def test_files_that_comments_name_are_there(files):
    kinds = (".py", ".smk", ".yaml", ".def")
    commented = [ROOT / "Snakefile", ROOT / "Makefile", ROOT / "config.yaml"]
    folders = [folder for folder in FOLDERS if folder.name != "tests"]  # where some are wrong on purpose
    commented += [path for folder in folders for path in folder.rglob("*") if path.suffix in kinds]
    for path in commented:
        named = re.findall(PATH % "(?:py|smk|md)", path.read_text(encoding="utf-8"))
        gone = [name for name in named if not any(file.endswith(f"/{name}") for file in files)]
        assert not gone, path


def test_the_table_of_promises_names_tests_that_there_are():
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    table = text.partition("## What is promised of inputs")[2].partition("\n## ")[0]
    rows = [line.removesuffix(" |").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    named = [re.findall(r"`(\w+)`", row[2]) for row in rows[1:] if len(row) == 3]
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) > 25
    for names in named:
        for name in names:
            assert f"def test_{name}(" in code, name
