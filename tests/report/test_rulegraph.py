"""The graph of rules: taken from jobs, written, read, and laid out so that it can be read."""

import re
from types import SimpleNamespace

import pytest
from valleys.errors import ValleysError
from valleys.report import rulegraph


def jobs(**needs):
    """Dependencies as Snakemake has them, from ``job="other other"``; a rule is a job's name less digits."""
    made = {name: SimpleNamespace(rule=SimpleNamespace(name=name.rstrip("0123456789"))) for name in needs}
    return {Job(name, made): [Job(n, made) for n in text.split()] for name, text in needs.items()}


class Job:
    def __init__(self, name, made):
        self.name, self.rule = name, made[name].rule

    def __eq__(self, other):
        return self.name == other.name

    def __hash__(self):
        return hash(self.name)


CYCLIC = {
    "data": "",
    "train1": "data",
    "average1": "train1",
    "refresh1": "train1",
    "refresh2": "average1",
    "descend1": "refresh2",
    "refresh3": "descend1",
    "probe1": "refresh1",
    "probe2": "refresh3 data",
    "report": "probe1 probe2",
    "all": "report other",
    "other": "data",
}


def test_rules_behind_the_report():
    graph = rulegraph.of_jobs(jobs(**CYCLIC))
    assert graph.jobs == {
        "data": 1, "train": 1, "average": 1, "refresh": 3, "descend": 1, "probe": 2, "report": 1,
    }  # fmt: skip
    assert ("refresh", "descend") in graph.edges
    assert ("descend", "refresh") in graph.edges
    assert graph.depth == pytest.approx(
        {
            "data": 0,
            "train": 1,
            "average": 2,
            "refresh": (2 + 3 + 5) / 3,
            "descend": 4,
            "probe": 4.5,
            "report": 7,
        },
        abs=1e-3,
    )


def test_no_report_no_rules():
    assert rulegraph.of_jobs(jobs(data="", other="data")).jobs == {}
    assert rulegraph.lay_out(rulegraph.RuleGraph({}, [], {})).boxes == []


def test_a_long_chain_of_jobs():
    chain = {"report": "a5000", **{f"a{i}": f"a{i - 1}" if i else "" for i in range(5001)}}
    assert rulegraph.of_jobs(jobs(**chain)).jobs == {"report": 1, "a": 5001}


def test_round_trip(tmp_path):
    path = tmp_path / rulegraph.FILE
    assert rulegraph.read(path) is None
    graph = rulegraph.of_jobs(jobs(**CYCLIC))
    path.write_text(graph.to_json())
    back = rulegraph.read(path)
    assert (back.jobs, back.edges, back.depth) == (graph.jobs, graph.edges, graph.depth)
    assert back.to_json() == graph.to_json()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "no graph of rules"),
        ("[]", "no graph of rules"),
        ('{"rules": {"a": {"jobs": 1}}, "edges": []}', "no graph of rules"),
        ('{"rules": {"a": {"jobs": 1, "depth": 0}}, "edges": [["a", "b"]]}', "edge of 'b'"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, text, words):
    path = tmp_path / rulegraph.FILE
    path.write_text(text)
    with pytest.raises(ValleysError, match=f"{path}.*{words}.*delete it and rerun") as caught:
        rulegraph.read(path)
    assert "\n" not in str(caught.value)


def test_layout():
    drawing = rulegraph.lay_out(rulegraph.of_jobs(jobs(**CYCLIC)))
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
    drawing = rulegraph.lay_out(rulegraph.of_jobs(jobs(**wide)))
    for one in drawing.boxes:
        assert 0 <= one.x <= drawing.width - rulegraph.WIDTH
        assert 0 <= one.y <= drawing.height - rulegraph.HEIGHT
        for other in drawing.boxes:
            if one is not other:
                apart = abs(one.x - other.x) >= rulegraph.WIDTH or abs(one.y - other.y) >= rulegraph.HEIGHT
                assert apart, (one, other)


def test_lines_do_not_cross_where_they_need_not():
    graph = rulegraph.RuleGraph(
        dict.fromkeys(("a", "b", "x", "y"), 1), [("a", "y"), ("b", "x")], {"a": 0, "b": 0, "x": 1, "y": 1}
    )
    at = {box.rule: box.x for box in rulegraph.lay_out(graph).boxes}
    assert (at["a"] < at["b"]) == (at["y"] < at["x"])
