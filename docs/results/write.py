"""Write the results that documents show: of finished runs into small tables here, from there into the pages.

    python docs/results/write.py [results/default results/default-replicate ...]

Each run named is copied to ``docs/results/<its name>``: the twelve verdicts, the rows that decide them,
losses of the solutions, the seconds of each rule, and ``about.json``, which says what made them. Then each
place between ``<!-- results: NAME -->`` and ``<!-- end -->`` in the pages is filled from these tables.
Without runs only the second is done. A test compares the pages with the tables. Nothing between such marks
is written by hand.

The first run in `RUNS` is the one that pages are about. Others stand beside it.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "workflow" / "scripts"))

from valleys import claims  # noqa: E402
from valleys.report import agreement  # noqa: E402
from valleys.results import stats  # noqa: E402
from valleys.storage import tables  # noqa: E402

PAGES = ("README.md", "docs/experiments.md", "docs/performance.md")
RUNS = {
    "default": "first run",
    "default-replicate": "fresh seeds",
    "default-other-bits": "other kernels",
    "default-other-processor": "other processor",
}
_PLACE = re.compile(r"(<!-- results: ([a-z0-9 ,-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


# Of a run -------------------------------------------------------------------------------------------


def take(folder: Path) -> None:
    """Copy what pages show of a finished run into ``docs/results/<name>``."""
    folder = folder.resolve()
    to = HERE / folder.name
    to.mkdir(exist_ok=True)
    found = {name: tables.read(folder / "tables" / f"{name}.parquet", name).to_pandas() for name in _TABLES}
    found["claims"] = found["claims"][found["claims"]["decides"]]
    _write(to / "verdicts.csv", found["verdicts"])
    _write(to / "deciding.csv", found["claims"][_SHOWN])
    _write(to / "losses.csv", losses(found["solutions"]))
    _write(to / "seconds.csv", seconds(folder))
    made = about(folder, found["solutions"])
    (to / "about.json").write_text(json.dumps(made, indent=1, sort_keys=True) + "\n", encoding="utf-8")


_TABLES = ("verdicts", "claims", "solutions")
_SHOWN = ["number", "claim", "scope", "effect", "low", "high", "unit", "n", "p_value", "verdict", "note"]


def losses(solutions: pd.DataFrame) -> pd.DataFrame:
    """Return mean losses with their t intervals by setting and solution."""
    rows = []
    names = ["dataset", "model", "recipe", "solution"]
    for key, part in solutions.groupby(names, sort=True):
        row = dict(zip(names, key, strict=True)) | {"n": len(part)}
        for loss in ("train_loss", "test_loss", "gradient_gain"):
            interval = stats.mean_interval(part[loss].dropna())
            row |= {loss: interval.estimate, f"{loss}_low": interval.low, f"{loss}_high": interval.high}
        rows.append(row)
    return pd.DataFrame(rows)


def seconds(folder: Path) -> pd.DataFrame:
    """Return the jobs and the seconds of each rule, most first: a job has one core."""
    jobs: dict[str, list[float]] = defaultdict(list)
    for path in (folder / "benchmarks").rglob("*.tsv"):
        with path.open() as file:
            *_, last = csv.DictReader(file, delimiter="\t")
        jobs[rule_of(path.stem)].append(float(last["s"]))
    rows = [{"rule": rule, "jobs": len(s), "seconds": round(sum(s), 1)} for rule, s in jobs.items()]
    return pd.DataFrame(rows).sort_values("seconds", ascending=False)


def rule_of(benchmark: str) -> str:
    """Return the rule that a benchmark file is of: ``search-searched`` is of ``search``."""
    return benchmark.partition("-")[0]


def about(folder: Path, solutions: pd.DataFrame) -> dict[str, Any]:
    """Return what made a run: its config, seeds, code, date, versions, and what decides the last bits."""
    made = tables.about(folder / "tables" / "verdicts.parquet")
    text = json.dumps(made["config"], sort_keys=True)
    return {
        "config": hashlib.sha256(text.encode()).hexdigest()[:16],
        "seeds": made["config"]["seeds"],
        "commit": _git("rev-parse", "--short=12", "HEAD"),
        "date": pd.Timestamp((folder / "report.html").stat().st_mtime, unit="s").strftime("%Y-%m-%d"),
        "versions": made["versions"],
        "kernels": sorted(solutions["kernels"].dropna().unique()),
    }


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _write(path: Path, frame: pd.DataFrame) -> None:
    frame.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")


# Into the pages -------------------------------------------------------------------------------------


@functools.cache
def read(run: str, name: str) -> pd.DataFrame:
    """Return a table of a run as it is committed."""
    return pd.read_csv(HERE / run / f"{name}.csv", keep_default_na=True)


def there() -> dict[str, str]:
    """Return the runs that there are tables of, each with its name for readers."""
    return {run: words for run, words in RUNS.items() if (HERE / run / "verdicts.csv").is_file()}


def markdown(rows: list[dict[str, Any]]) -> str:
    """Return rows of ready text as a Markdown table; the keys of the first are its head."""
    head = list(rows[0])
    lines = [head, ["---"] * len(head), *([str(row[key]) for key in head] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(value: float) -> str:
    """Return a number to three digits, "–" where there is none."""
    return "–" if pd.isna(value) else f"{value:.3g}"


def p_text(value: float) -> str:
    """Return a p-value to two digits; one below 1e-9 is said to be so."""
    return "–" if pd.isna(value) else "below 1e-9" if value < 1e-9 else f"{value:.2g}"


def verdict(text: str) -> str:
    """Return a verdict, in bold where it is decided."""
    return f"**{text}**" if text in agreement.DECIDED else text


def verdicts_block() -> str:
    """The twelve verdicts of all runs side by side, and how they agree with the first."""
    runs = there()
    first, *others = runs
    found = {run: read(run, "verdicts").set_index("number", drop=False) for run in runs}
    rows = []
    for row in found[first].to_dict("records"):
        line = {"": row["number"], "claim": row["statement"]}
        rows.append(
            line | {words: verdict(found[run].at[row["number"], "verdict"]) for run, words in runs.items()}
        )
    sentences = []
    for run in others:
        agreed = agreement.agree(*(found[one].reset_index(drop=True) for one in (first, run)))
        decided, same, contrary = agreed.decided("a"), agreed.count("same"), agreed.count("contradicts")
        sentences.append(
            f"- {runs[run].capitalize()}: of {decided} claims that the first run decides, {same} have the "
            f"same verdict, {contrary} the contrary one, and {decided - same - contrary} are open."
        )
    return "\n\n".join([markdown(rows), "\n".join(sentences)])


def claim_block(text: str) -> str:
    """The rows that decide a claim, at the end the claim: the first run in full, others where they differ."""
    runs, which = there(), int(text)
    rows_of = {run: _deciding(run, which) for run in runs}
    first = rows_of[next(iter(runs))]
    if not first:
        return "No row decides it."
    rows = []
    for key, row in first.items():
        interval = f"{number(row['low'])} to {number(row['high'])}"
        line = {
            "row": f"`{row['claim']}` {row['scope']}",
            "effect": f"{number(row['effect'])} {row['unit']} ({interval})",
            "n": row["n"],
            "p": p_text(row["p_value"]),
        }
        rows.append(line | {"verdict": _in_runs([rows_of[run].get(key, NO_ROW)["verdict"] for run in runs])})
    own = [read(run, "verdicts").set_index("number").loc[which] for run in runs]
    of_claim = {"row": f"**claim {which}**, p adjusted", "p": p_text(own[0]["p_adjusted"])}
    of_claim["verdict"] = _in_runs([one["verdict"] for one in own])
    rows.append(dict.fromkeys(rows[0], "") | of_claim)
    notes = [_notes(row["note"]) for row in first.values() if row["note"]]
    return "\n\n".join([markdown(rows), *(notes if len(first) <= MOST_NOTES else [])])


MOST_NOTES = 1
"""Of a claim that more rows decide, their notes are in the report alone."""
NO_ROW = {"verdict": "–"}


def _in_runs(verdicts: list[str]) -> str:
    """Return the verdict of the first run, and in brackets those of the others that differ."""
    first, *others = verdicts
    names = list(there().values())[1:]
    pairs = zip(names, others, strict=True)
    differ = ", ".join(f"{name}: {verdict(other)}" for name, other in pairs if other != first)
    return verdict(first) + (f" ({differ})" if differ else "")


def _notes(text: str) -> str:
    """Return what a row's note says as a list."""
    return "\n".join(["Notes of the first run:", "", *(f"- {part}" for part in text.split("; "))])


def _deciding(run: str, which: int) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the rows that decide a claim in a run, by name and scope."""
    frame = read(run, "deciding")
    rows = frame[frame["number"] == which].to_dict("records")
    return {(row["claim"], row["scope"]): row for row in rows}


def seconds_block() -> str:
    """Jobs and seconds of each rule, of all runs there are: those of the default and what it was before."""
    runs = [run for run in ("before", "default") if (HERE / run / "seconds.csv").is_file()]
    frames = {run: read(run, "seconds").set_index("rule") for run in runs}
    rules = list(dict.fromkeys(rule for run in reversed(runs) for rule in frames[run].index))
    rows = []
    for rule in rules:
        row = {"rule": rule}
        for run, frame in frames.items():
            known = rule in frame.index
            row |= {f"jobs, {run}": frame.at[rule, "jobs"] if known else "–"}
            row |= {f"seconds, {run}": round(frame.at[rule, "seconds"]) if known else "–"}
        rows.append(row)
    total = {"rule": "all"}
    for run, frame in frames.items():
        total |= {f"jobs, {run}": frame["jobs"].sum(), f"seconds, {run}": round(frame["seconds"].sum())}
    return markdown([*rows, total])


def losses_block() -> str:
    """Losses of the solutions of the first run, means with intervals."""
    frame = read(next(iter(there())), "losses")
    rows = []
    for row in frame.to_dict("records"):
        line = {
            "setting": "/".join(row[k] for k in ("dataset", "model", "recipe")),
            "solution": row["solution"],
        }
        for key, head in (
            ("train_loss", "train loss"),
            ("test_loss", "test loss"),
            ("gradient_gain", "gradient"),
        ):
            line[head] = f"{number(row[key])} ({number(row[f'{key}_low'])} to {number(row[f'{key}_high'])})"
        rows.append(line | {"n": row["n"]})
    return markdown(rows)


def about_block() -> str:
    """What made each run."""
    rows = []
    for run, words in there().items():
        made = json.loads((HERE / run / "about.json").read_text())
        seeds = f"{min(made['seeds'])} to {max(made['seeds'])}"
        rows.append(
            {
                "run": words,
                "seeds": seeds,
                **{key: made[key] for key in ("date", "commit", "config")},
                "torch": made["versions"]["torch"],
                "kernels": "; ".join(made["kernels"]),
            }
        )
    return markdown(rows)


def terminal_block() -> str:
    """How the first run ended: what ``valleys claims`` prints of the first two claims."""
    run = next(iter(there()))
    lines = claims.verdicts_as_text(read(run, "verdicts")).splitlines()
    third = next(i for i, line in enumerate(lines) if line.split()[:1] == ["3"])
    return "\n".join(["```", *lines[:third], " ...", "", f"report: results/{run}/report.html", "```"])


BLOCKS: dict[str, Callable[..., str]] = {
    "verdicts": verdicts_block,
    "claim": claim_block,
    "seconds": seconds_block,
    "losses": losses_block,
    "about": about_block,
    "terminal": terminal_block,
}


def rendered(page: str) -> str:
    """Return a page with each place filled from the tables.

    Raises
    ------
    KeyError
        For a place of a name that is none of `BLOCKS`.
    """

    def fill(match: re.Match[str]) -> str:
        kind, _, rest = match[2].partition(" ")
        text = BLOCKS[kind](*([rest] if rest else []))
        return f"{match[1]}{text}\n{match[4]}"

    return _PLACE.sub(fill, page)


def main(folders: list[str]) -> None:
    """Take the runs in these folders, and fill the pages."""
    for folder in folders:
        take(Path(folder))
    for name in PAGES:
        path = ROOT / name
        path.write_text(rendered(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
