"""The picture of rules: in layers, without overlaps, the same in every process."""

import os
import re
import subprocess
import sys

import pytest
from planned_jobs import CYCLIC, jobs
from valleys.report import rulegraph, rulegraph_layout
from workflow_runs import ROOT


def test_no_rules_no_boxes():
    assert rulegraph_layout.lay_out(rulegraph.RuleGraph({}, [], {})).boxes == []


def test_layout():
    drawing = rulegraph_layout.lay_out(rulegraph.of_jobs(jobs(**CYCLIC)))
    top = {box.rule: box.y for box in drawing.boxes}
    assert sorted(top, key=top.get) == [
        "data",
        "train",
        "average",
        "refresh",
        "descend",
        "probe",
        "report",
    ] or (top["descend"] == top["probe"])
    # Down: a line for each need that no longer way implies. Back: what an earlier rule has from a later one.
    down = [path for path, back in drawing.lines if not back]
    assert len(down) == 6  # data-train-average-refresh-(descend, probe), probe-report
    assert [back for _, back in drawing.lines].count(True) == 1
    for path, back in drawing.lines:
        numbers = [float(n) for n in re.findall(r"-?\d+\.?\d*", path)]
        first, last = numbers[1], numbers[-1]
        assert (last < first) == back


def test_boxes_are_apart():
    wide = {f"r{c}": "data" for c in "abcdefgh"} | {"data": "", "mid": "ra rb"}
    wide["report"] = " ".join(name for name in wide if name != "data")
    drawing = rulegraph_layout.lay_out(rulegraph.of_jobs(jobs(**wide)))
    for one in drawing.boxes:
        assert 0 <= one.x <= drawing.width - rulegraph_layout.WIDTH
        assert 0 <= one.y <= drawing.height - rulegraph_layout.HEIGHT
        for other in drawing.boxes:
            if one is not other:
                apart = (
                    abs(one.x - other.x) >= rulegraph_layout.WIDTH
                    or abs(one.y - other.y) >= rulegraph_layout.HEIGHT
                )
                assert apart, (one, other)


def test_lines_do_not_cross_where_they_need_not():
    graph = rulegraph.RuleGraph(
        dict.fromkeys(("a", "b", "x", "y"), 1), [("a", "y"), ("b", "x")], {"a": 0, "b": 0, "x": 1, "y": 1}
    )
    at = {box.rule: box.x for box in rulegraph_layout.lay_out(graph).boxes}
    assert (at["a"] < at["b"]) == (at["y"] < at["x"])


@pytest.mark.slow
def test_each_process_draws_the_same_picture():
    """Words are hashed differently in each: nothing may depend on the order of a set."""
    code = """
from planned_jobs import CYCLIC, jobs
from valleys.report import rulegraph, rulegraph_layout
print(rulegraph_layout.lay_out(rulegraph.of_jobs(jobs(**CYCLIC, more="data"))))
"""
    paths = os.pathsep.join(str(ROOT / folder) for folder in ("workflow/scripts", "tests"))
    drawn = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in "123"
    }
    assert len(drawn) == 1
