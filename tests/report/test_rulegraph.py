"""The graph of rules: taken from jobs, written and read."""

import pytest
from planned_jobs import CYCLIC, jobs
from valleys.errors import ValleysError
from valleys.report import rulegraph


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
