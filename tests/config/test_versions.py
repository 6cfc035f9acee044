"""A stage whose code has changed must have had its version looked at.

Snakemake does not see changes in the library that a rule's script imports. Each stage therefore has a version
in its params (config/versions.py). This test keeps a hash of the definitions that each stage uses
(stage_code.py). When one differs, either raise the stage's version (its results change: it and all downstream
are remade) or leave it (they do not), and then record the new hash with ``make stamp``.
"""

import json
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from stage_code import SCRIPTS, library, reached, stage_hash
from valleys.config.versions import VERSIONS

RECORD = Path(__file__).with_name("stage_hashes.json")


def present():
    modules = library()
    return {
        stage: {"version": version, "code": stage_hash(stage, modules=modules)}
        for stage, version in VERSIONS.items()
    }


def test_every_stage_has_a_script_and_a_version():
    assert {path.stem for path in SCRIPTS.glob("*.py")} == set(VERSIONS)


@pytest.mark.slow
def test_definitions_are_followed_through_the_library():
    modules = library()
    trained = reached("train_sgd", modules=modules)
    assert {"training.sgd.train", "training.trainer.Trainer", "data.augment.epoch_batches"} <= trained
    assert {"models.architectures.PreResNet", "storage.weights.save_weights"} <= trained
    assert not {"training.sgd.descend", "training.paths.connect", "storage.weights.relabel"} & trained
    prepared = reached("prepare_dataset", modules=modules)  # each reader is named by an entry
    assert {"data.sources.digits.read", "data.sources.parquet.read", "data.cache.write_split"} <= prepared
    drawn = reached("figures", modules=modules)
    assert {"figures.shift.KIND", "figures.study.KIND", "results.stats.wilson"} <= drawn
    assert not any(name.startswith("training.") for name in drawn)
    assert not any(name.startswith(("errors.", "execution.", "config.schema.")) for name in trained | drawn)


LIBRARY = {
    "one": """
value = 1
value += 1

def used():
    '''Text.'''
    return value

def apart():
    return 2
""",
    "errors": """
class Wrong(Exception):
    pass
""",
    "many/__init__": """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from valleys.many.deep import passed
""",
    "many/deep": """
from valleys import one

def passed():
    return one.used()

class Whole:
    a = 1
""",
    "many/lists": """
ALL = {}

def entered(f):
    ALL[f.__name__] = f

@entered
def first():
    return 1
""",
}


@pytest.fixture
def scripts(tmp_path):
    for name, text in LIBRARY.items():
        path = tmp_path / "valleys" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("from valleys import one\none.used()", {"one.used", "one.value"}),
        ("from valleys.one import used\nused()", {"one.used", "one.value"}),
        ("from valleys import one as other\nother.apart()", {"one.apart"}),
        ("from valleys import one\nf(one)", {"one.used", "one.value", "one.apart"}),
        ("from valleys.many import passed\npassed()", {"many.deep.passed", "one.used", "one.value"}),
        ("from valleys.many import deep\ndeep.Whole()", {"many.deep.Whole"}),
        ("def late():\n    from valleys.many import deep\n    deep.Whole()", {"many.deep.Whole"}),
        (
            "from valleys.many import lists\nlists.ALL",
            {"many.lists.ALL", "many.lists.first", "many.lists.entered"},
        ),
        (
            "get(f'valleys.many.{x}').Whole",
            {"many.deep.passed", "many.deep.Whole", "one.used", "one.value"}
            | {"many.lists.ALL", "many.lists.first", "many.lists.entered"},
        ),
        ("from valleys.errors import Wrong\nraise Wrong", set()),
        ("import json\njson.dumps(1)", set()),
    ],
)
def test_every_way_to_a_definition_is_followed(line, found, scripts):
    (scripts / "work.py").write_text(line + "\n")
    assert reached("work", scripts) == found


@pytest.mark.parametrize(
    ("file", "old", "new", "is_seen"),
    [
        ("one", "value += 1", "value += 2", True),
        ("one", "return value", "return -value", True),
        ("one", "'''Text.'''", "'''Other text.'''", False),
        ("one", "return 2", "return 3", False),
        ("many/deep", "return one.used()", "return one.used() + 1", True),
        ("many/deep", "a = 1", "a = 2", False),
        ("errors", "pass", "x = 1", False),
    ],
)
def test_a_change_is_seen_where_it_has_a_part(file, old, new, is_seen, scripts):
    (scripts / "work.py").write_text("from valleys.many import deep\ndeep.passed()\n")
    before = stage_hash("work", scripts)
    path = scripts / "valleys" / f"{file}.py"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert (stage_hash("work", scripts) != before) == is_seen


def test_code_that_moves_is_the_same_code(scripts):
    (scripts / "work.py").write_text("from valleys.many import deep\ndeep.passed()\n")
    before = stage_hash("work", scripts)
    library = scripts / "valleys"
    shutil.move(library / "one.py", library / "many" / "first.py")
    deep = library / "many" / "deep.py"
    deep.write_text(
        deep.read_text()
        .replace("import one\n", "many import first\n")
        .replace("one.used", "first.used")
        .replace("from valleys many", "from valleys.many")
    )
    assert "from valleys.many import first" in deep.read_text()
    assert stage_hash("work", scripts) == before


@pytest.mark.slow
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
