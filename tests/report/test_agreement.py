"""Whether two runs give the same verdicts."""

import pandas as pd
import pytest
from agreement_tables import verdicts
from valleys.errors import ValleysError
from valleys.report import agreement
from valleys.storage import tables


def agree(a, b):
    return agreement.agree(pd.DataFrame(verdicts(*a)), pd.DataFrame(verdicts(*b)))


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("supported", "supported", "same"),
        ("refuted", "refuted", "same"),
        ("supported", "refuted", "contradicts"),
        ("refuted", "supported", "contradicts"),
        ("supported", "inconclusive", "open"),
        ("not decidable", "refuted", "open"),
        ("inconclusive", "inconclusive", "open"),
    ],
)
def test_two_verdicts(a, b, expected):
    assert [row["agreement"] for row in agree([a], [b]).rows] == [expected]


def test_counts_and_summary():
    found = agree(
        ["supported", "refuted", "supported", "refuted", "inconclusive"],
        ["supported", "supported", "not decidable", "refuted", "supported"],
    )
    assert (found.count("same"), found.count("contradicts"), found.count("open")) == (2, 1, 2)
    assert (found.decided("a"), found.decided("b")) == (4, 4)
    assert "2 have the same verdict in B, 1 the contrary one, and 1 are open" in found.summary()
    assert found.summary() in agreement.as_text(found)


def test_rows_go_by_number_whatever_their_order():
    a, b = pd.DataFrame(verdicts("supported", "refuted")), pd.DataFrame(verdicts("supported", "refuted"))
    assert [row["agreement"] for row in agreement.agree(a, b[::-1]).rows] == ["same", "same"]


def test_a_run_that_is_not_finished(tmp_path):
    with pytest.raises(ValleysError, match=r"no tables/verdicts.parquet; give the folder of a finished run"):
        agreement.verdicts_of(tmp_path)
    tables.write(tmp_path / "tables" / "verdicts.parquet", "verdicts", verdicts("refuted"), {})
    assert list(agreement.verdicts_of(tmp_path)["verdict"]) == ["refuted"]
