"""The prevalence figure: what is drawn, and what is said."""

import pandas as pd
import pytest
from figure_tables import SPEC, make_rows, through_parquet, with_signs
from valleys import figures
from valleys.results import measures
from valleys.results.stats import wilson

pytestmark = pytest.mark.usefixtures("no_warnings")


def test_prevalence_counts(figure_data):
    counts = measures.prevalence(figure_data["asymmetry"], 0.95, 2.0)
    assert list(counts["solution"]) == ["sgd", "swa"]
    row = counts.iloc[0]
    assert (row["n"], row["asymmetric"], row["symmetric"], row["not_minimum"]) == (12, 6, 3, 3)
    expected = wilson(6, 12)
    assert (row["asymmetric_low"], row["asymmetric_high"]) == (expected.low, expected.high)
    labels = [t.get_text() for t in figures.draw("prevalence", figure_data, SPEC).axes[0].texts]
    assert labels == ["6/12", "6/12", "asymmetric (c* ≥ 2)"]


def test_prevalence_leaves_out_kind_sign(tmp_path, figure_data):
    frames = with_signs(tmp_path)
    assert figures.caption("prevalence", frames, SPEC) == figures.caption("prevalence", figure_data, SPEC)
    assert len(figures.draw("prevalence", frames, SPEC).axes[0].texts) == 3


@pytest.mark.parametrize("short", [0, 1, 5])
def test_the_caption_says_where_the_loss_falls_short_of_the_rise(figure_data, short):
    table = figure_data["asymmetry"]
    table = table[~table["kind"].isin(["sign", "searched"])]
    table = table.assign(radius_status=["capped"] * short + ["found"] * (len(table) - short))
    told = figures.caption("prevalence", {**figure_data, "asymmetry": table}, SPEC)
    many = f"{short} direction{'s' if short > 1 else ''}"
    assert (f"Along {many} of {len(table)} the loss does not rise as asked for. " in told) == bool(short)
    assert ("the loss does not rise" in told) == bool(short)


def test_prevalence_caption(figure_data):
    share = wilson(12, 24)
    bounds = f"{100 * share.low:.1f} % to {100 * share.high:.1f} %"
    assert f"uniform: 50 % ({bounds}; n = 24); rises uneven in " in figures.caption(
        "prevalence", figure_data, SPEC
    )
    changed = figure_data["asymmetry"].assign(status="symmetric")
    assert "uniform: 0 % (0 % to" in figures.caption("prevalence", {"asymmetry": changed}, SPEC)


def test_the_caption_counts_verdicts_that_hang_on_a_subset(figure_data):
    table = figure_data["asymmetry"]
    certain = pd.Series(None, index=table.index, dtype=object)
    certain.iloc[:4] = [True, False, True, True]
    told = figures.caption("prevalence", {**figure_data, "asymmetry": table.assign(certain=certain)}, SPEC)
    assert "The verdict of 1 of 4 on a subset of the images might be another on all. Asymmetric" in told
    assert "subset" not in figures.caption("prevalence", figure_data, SPEC)


def test_marks_lie_about_the_label_of_their_probe(tmp_path):
    rows = make_rows(probes=("uniform", "gradient"), solutions=("sgd", "swa", "descent"))
    keep = {("gradient", "swa")} | {("uniform", solution) for solution in ("sgd", "descent")}
    for name in ("asymmetry", "directions"):
        rows[name] = [row for row in rows[name] if (row["probe"], row["solution"]) in keep]
    axes = figures.draw("prevalence", through_parquet(tmp_path, rows), SPEC).axes[0]
    labels = dict(zip((t.get_text() for t in axes.get_yticklabels()), axes.get_yticks(), strict=True))
    heights = sorted(float(bars.lines[0].get_ydata()[0]) for bars in axes.containers)
    step = 0.72 / 3
    assert heights == pytest.approx(
        sorted([labels["uniform"] - step / 2, labels["uniform"] + step / 2, labels["gradient"]])
    )
