"""Two finished experiments side by side."""

import csv
import html.parser
import json
import math

import numpy as np
import pytest
from agreement_tables import verdicts
from browser import CHROMIUM, browser
from valleys.cli.commands import main
from valleys.errors import ValleysError
from valleys.report import compare
from valleys.results import stats
from valleys.storage import tables

CONFIG = {"claims": {"level": 0.95}, "recipes": {"short": {"lr": 0.1, "epochs": 5}}}
SHARE = stats.wilson(7, 10)
SIGN_FLIP = "exact sign-flip test; t interval of the mean"
VERDICTS = verdicts("supported", "inconclusive")
MEAN = stats.mean_interval([0.1, 0.3, 0.2])


def claim(name, interval, test="Hoeffding's inequality", scope="digits/net/short", **more):
    text = {c["name"]: "" for c in tables.declared()["claims"]["columns"]}
    numbers = {"effect": interval.estimate, "low": interval.low, "high": interval.high, "n": interval.n}
    row = text | numbers | {"claim": name, "scope": scope, "test": test, "unit": "share", "experiment": 1}
    row |= {"number": 1, "decides": True, "p_for": None, "p_against": None, "n_needed": None}
    return row | {"statement": f"{name} holds", "verdict": "supported", "p_value": None} | more


def solution(seed, loss, **more):
    row = dict.fromkeys((c["name"] for c in tables.declared()["solutions"]["columns"]), None)
    row |= {"dataset": "digits", "model": "net", "recipe": "short", "seed": seed, "solution": "sgd"}
    row |= {"train_loss": loss, "test_loss": 2 * loss, "train_accuracy": 0.9, "test_accuracy": 0.8}
    row |= {"weight_norm": 1.0, "parameters": 5, "bn_policy": "none", "n_train": 100, "n_test": 50}
    return row | {"iterates": 0, "checksum": "x"} | more


def experiment(folder, claims, solutions, config=CONFIG):
    tables.write(folder / "tables" / "claims.parquet", "claims", claims, config)
    tables.write(folder / "tables" / "verdicts.parquet", "verdicts", VERDICTS, config)
    tables.write(folder / "tables" / "solutions.parquet", "solutions", solutions, config)
    return folder


@pytest.fixture
def two(tmp_path):
    ours = [
        claim("one", SHARE),
        claim("mean", MEAN, SIGN_FLIP),
        claim("gone", SHARE),
    ]
    theirs = [
        claim("one", stats.wilson(2, 20), verdict="refuted"),
        claim("mean", MEAN, SIGN_FLIP),
    ]
    theirs += [claim("new", SHARE)]
    a = experiment(tmp_path / "a", ours, [solution(k, 0.1 * k + 0.1) for k in range(4)])
    more = {"recipes": {"short": {"lr": 0.2, "epochs": 5}}, "claims": {"level": 0.95}}
    b = experiment(tmp_path / "b", theirs, [solution(k, 0.1 * k + 0.2 + 0.01 * k) for k in range(2, 6)], more)
    return a, b


def rows_of(a, b):
    rows = compare.compare(compare.load(a), compare.load(b))
    return {(row["name"], row["scope"]): row for row in rows}


def test_a_difference_of_wilson_intervals_is_newcombes():
    # Newcombe 1998, Statistics in Medicine 17, table II: method 10 of 56/70 - 48/80.
    found = stats.difference(stats.wilson(48, 80), stats.wilson(56, 70))
    assert (round(found.low, 4), round(found.high, 4)) == (0.0524, 0.3339)
    assert found.estimate == pytest.approx(0.2)
    assert found.n == 70


def test_a_difference_of_symmetric_intervals_adds_squares():
    found = stats.difference(stats.Interval(1.0, 0.7, 1.3, 5), stats.Interval(3.0, 2.6, 3.4, 9))
    assert (found.estimate, found.low, found.high) == pytest.approx((2.0, 1.5, 2.5))
    assert math.isnan(stats.difference(stats.Interval(1.0, math.nan, 1.3, 1), SHARE).high)


def test_the_interval_of_a_difference_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = rng.binomial(20, 0.8, 2000), rng.binomial(30, 0.4, 2000)
    wilson = [{k: stats.wilson(k, n) for k in range(n + 1)} for n in (20, 30)]
    found = [stats.difference(wilson[0][i], wilson[1][j]) for i, j in zip(*hits, strict=True)]
    covered = np.mean([interval.low < -0.4 < interval.high for interval in found])
    assert 0.935 < covered < 0.975


def test_welch():
    a, b = [1.0, 2.0, 4.0], [2.0, 5.0, 5.0, 7.0]
    from scipy.stats import t

    va, vb = np.var(a, ddof=1) / 3, np.var(b, ddof=1) / 4
    half = t.ppf(0.975, (va + vb) ** 2 / (va**2 / 2 + vb**2 / 3)) * math.sqrt(va + vb)
    found, d = stats.welch(a, b), np.mean(b) - np.mean(a)
    assert (found.estimate, found.low, found.high) == pytest.approx((d, d - half, d + half))
    assert stats.welch([1.0, 1.0], [3.0, 3.0]) == stats.Interval(2.0, 2.0, 2.0, 2)
    assert math.isnan(stats.welch([1.0], [3.0, 4.0]).low)
    assert math.isnan(stats.welch([], [3.0, 4.0]).estimate)


def test_claims_side_by_side(two):
    rows = rows_of(*two)
    one = rows["one", "digits/net/short"]
    assert (one["verdict_a"], one["verdict_b"], one["found_in"]) == ("supported", "refuted", "both")
    expected = stats.difference(SHARE, stats.wilson(2, 20))
    assert (one["difference"], one["low"], one["high"]) == (expected.estimate, expected.low, expected.high)
    assert one["high"] < 0
    assert rows["mean", "digits/net/short"]["difference"] == 0
    gone, new = rows["gone", "digits/net/short"], rows["new", "digits/net/short"]
    assert (gone["found_in"], gone["b"], gone["verdict_b"], gone["difference"]) == ("a", None, None, None)
    assert (new["found_in"], new["a"], new["b_n"]) == ("b", None, 10)


def by_seed(values, test=SIGN_FLIP):
    """A claim whose effect is the mean of values by seed."""
    interval = stats.mean_interval(list(values.values()))
    return claim("mean", interval, test, by_seed=json.dumps(values), unit="nats")


def test_means_over_seeds_are_paired_by_seed(tmp_path):
    ours = {"0": 0.1, "1": 0.9, "2": 0.5, "7": 3.0}
    theirs = {"2": 0.52, "1": 0.92, "0": 0.13, "8": -3.0}
    a = experiment(tmp_path / "a", [by_seed(ours)], [])
    b = experiment(tmp_path / "b", [by_seed(theirs)], [])
    (row,) = rows_of(a, b).values()
    expected = stats.mean_interval([0.03, 0.02, 0.02])
    assert row["method"] == "paired over 3 seeds in both; t interval"
    assert (row["difference"], row["low"], row["high"]) == pytest.approx(
        (expected.estimate, expected.low, expected.high)
    )
    assert row["low"] > 0  # which their own intervals, each wider than 1, would not tell
    apart = stats.difference(*(stats.mean_interval(list(v.values())) for v in (ours, theirs)))
    assert apart.low < 0


@pytest.mark.parametrize("theirs", [{"5": 0.1, "6": 0.2}, {"0": 0.1, "6": 0.2}])
def test_means_that_share_no_two_seeds_are_independent(tmp_path, theirs):
    a = experiment(tmp_path / "a", [by_seed({"0": 0.1, "1": 0.3})], [])
    b = experiment(tmp_path / "b", [by_seed(theirs)], [])
    (row,) = rows_of(a, b).values()
    assert row["method"] == "recovered from the two intervals"


def test_solutions_are_paired_by_seed(two):
    row = rows_of(*two)["train_loss", "digits/net/short/sgd"]
    expected = stats.mean_interval([0.1 + 0.02, 0.1 + 0.03])  # seeds 2 and 3
    assert row["difference"] == pytest.approx(expected.estimate)
    assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high))
    assert row["method"] == "paired over 2 seeds in both; t interval"
    assert (row["a_n"], row["b_n"], row["a"]) == (4, 4, pytest.approx(0.25))


def test_seeds_that_no_two_share_are_two_samples(tmp_path):
    a = experiment(tmp_path / "a", [], [solution(0, 0.1), solution(1, 0.3)])
    b = experiment(tmp_path / "b", [], [solution(2, 0.5, n_test=60), solution(3, math.nan), solution(4, 0.6)])
    rows = rows_of(a, b)
    row, expected = rows["train_loss", "digits/net/short/sgd"], stats.welch([0.1, 0.3], [0.5, 0.6])
    assert (row["difference"], row["low"]) == (expected.estimate, expected.low)
    assert row["method"] == "two means: no seed in both; t interval"
    assert row["note"] == "1 of 3 seeds in B not finite"
    assert "other images: 50 in A, 50, 60 in B" in rows["test_loss", "digits/net/short/sgd"]["note"]


def test_an_interval_of_a_share_ends_at_one(tmp_path):
    accuracies = [solution(0, 0.1, test_accuracy=0.99), solution(1, 0.1, test_accuracy=0.8)]
    a = experiment(tmp_path / "a", [], accuracies)
    row = rows_of(a, a)["test_accuracy", "digits/net/short/sgd"]
    assert (row["a_low"], row["a_high"]) == (0, 1)


def test_one_common_seed_has_no_interval(tmp_path):
    a = experiment(tmp_path / "a", [], [solution(0, 0.1)])
    b = experiment(tmp_path / "b", [], [solution(0, 0.3)])
    row = rows_of(a, b)["train_loss", "digits/net/short/sgd"]
    assert (row["difference"], row["low"]) == (pytest.approx(0.2), None)
    assert row["method"] == "paired over 1 seed in both; no interval of one value"


@pytest.mark.parametrize(
    ("left", "right", "config", "method"),
    [
        ({}, {"unit": "nats"}, CONFIG, "none: the units differ"),
        ({}, {}, CONFIG | {"claims": {"level": 0.9}}, "none: levels 0.95 and 0.9 differ"),
        ({"test": "normal intervals of all rows"}, {}, CONFIG, "none: the effect is an extreme over rows"),
        ({"low": math.nan}, {}, CONFIG, "none: an effect has no interval"),
    ],
)
def test_differences_without_an_interval_say_why(tmp_path, left, right, config, method):
    a = experiment(tmp_path / "a", [claim("one", SHARE) | left], [])
    b = experiment(tmp_path / "b", [claim("one", SHARE) | right], [], config)
    (row,) = rows_of(a, b).values()
    assert (row["method"], row["low"]) == (method, None)


def test_the_terminal_has_verdicts_differences_and_changed_keys(two, capsys):
    assert main(["compare", *map(str, two)]) == 0
    text = capsys.readouterr().out
    assert "recipes.short.lr: 0.1 | 0.2" in text
    assert "epochs" not in text
    (line,) = [line for line in text.splitlines() if line.startswith("one ")]
    assert "supported" in line
    assert "refuted" in line
    assert line.rstrip().endswith("*  share")
    assert "2 claims in both, 1 with the same verdict; 1 in A only, 1 in B only" in text


class Cells(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.rows, self.data = 0, []

    def handle_starttag(self, tag, attributes):
        self.rows += tag == "tr"

    def handle_data(self, data):
        self.data.append(data.strip())


def test_the_rows_are_written_in_three_formats(two, tmp_path, capsys):
    rows = len(rows_of(*two))
    for suffix in compare.FORMATS:
        assert main(["compare", *map(str, two), "--output", str(tmp_path / f"c{suffix}")]) == 0
    assert tables.read(tmp_path / "c.parquet", "comparison").num_rows == rows
    assert tables.about(tmp_path / "c.parquet")["config"]["b"]["recipes"]["short"]["lr"] == 0.2
    with (tmp_path / "c.csv").open() as file:
        read = list(csv.DictReader(file))
    assert len(read) == rows
    assert float(read[0]["difference"]) == pytest.approx(-0.6)
    assert read[0]["a_n"] == "10"
    page = Cells()
    page.feed((tmp_path / "c.html").read_text())
    verdicts = 1 + len(VERDICTS)  # with their head
    assert page.rows == verdicts + rows + 2 + 2  # heads, and the one key of the config that differs
    assert "1. claim 1 holds" in page.data
    assert "1 of 2 claims are decided in A, 1 in B." in capsys.readouterr().out
    told = [text for text in page.data if text in ("One holds", "Mean holds", "Gone holds", "New holds")]
    assert told == ["One holds", "Mean holds", "Gone holds", "New holds"]
    assert [page.data[page.data.index("recipes.short.lr") + i] for i in (1, 2)] == ["0.1", "0.2"]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt-get install chromium)")
def test_the_page_fits_a_narrow_window_and_asks_for_nothing(two, tmp_path):
    main(["compare", *map(str, two), "--output", str(tmp_path / "c.html")])
    with browser() as page:
        for width in (360, 800, 1600):
            page.size(width, 800, width < 500)
            page.open(tmp_path / "c.html")
            assert page.run("document.documentElement.scrollWidth <= innerWidth"), width
        assert page.run("document.querySelectorAll('tr.differs').length") == 1 + 2  # a verdict, two losses
        assert page.complaints == []
        assert set(page.requests) == {(tmp_path / "c.html").as_uri()}


def test_names_in_a_page_are_text(tmp_path):
    a = experiment(tmp_path / "a<b>", [claim("<script>", SHARE)], [])
    main(["compare", str(a), str(a), "--output", str(tmp_path / "c.html")])
    page = (tmp_path / "c.html").read_text()
    assert "<script>" not in page
    assert "a<b>" not in page
    assert "&lt;script&gt;" in page


def test_mistakes_are_one_line(two, tmp_path, capsys):
    a, b = map(str, two)
    assert main(["compare", a, str(tmp_path / "nowhere")]) == 1
    assert (
        "nowhere has no tables/claims.parquet; give the folder of a finished run" in capsys.readouterr().err
    )
    assert main(["compare", a, b, "--output", "c.txt"]) == 1
    assert "--output: c.txt ends in '.txt'; use .parquet, .csv, .html" in capsys.readouterr().err
    (two[1] / "tables" / "solutions.parquet").write_bytes(b"PAR1 and no more")
    assert main(["compare", a, b]) == 1
    assert "solutions.parquet is truncated or not Parquet" in capsys.readouterr().err
    (two[1] / "tables" / "solutions.parquet").unlink()
    with pytest.raises(ValleysError, match=r"has no tables/solutions.parquet"):
        compare.load(two[1])
