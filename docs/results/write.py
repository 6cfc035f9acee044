"""Write the results that documents show: of finished runs into small tables here, from there into the pages.

    python docs/results/write.py [results/default results/default-replicate ...]

Each run named is copied to ``docs/results/<its name>``: the twelve verdicts, the rows that decide them,
losses of the solutions, the seconds of each rule, and ``about.json``, which says what made them. Then each
place between ``<!-- results: NAME -->`` and ``<!-- end -->`` in the pages is filled from these tables.
Without runs only the second is done. A test compares the pages with the tables. Nothing between such marks
is written by hand.

The first run in `RUNS` is the one that pages are about. Others stand beside it. Those in `GALLERY` are of
other networks and data: their figures and report pages go to ``docs/gallery/<name>``, and what they were
planned to take, beside what they took, to ``plan.csv``.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import functools
import hashlib
import json
import re
import shutil
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
from valleys.costs import plan  # noqa: E402
from valleys.report import agreement  # noqa: E402
from valleys.results import doubts, measures, stats  # noqa: E402
from valleys.storage import tables  # noqa: E402

PAGES = ("README.md", "docs/experiments.md", "docs/performance.md", "docs/gallery/README.md")
RUNS = {
    "default": "first run",
    "default-replicate": "fresh seeds",
    "default-other-bits": "other kernels",
    "default-other-processor": "other processor",
}
GALLERY = {"cifar10": "CIFAR-10", "own-vit": "a vision transformer"}
CONFIGS = {"cifar10": "config/cifar10.yaml", "own-vit": "examples/cifar10.yaml"}
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
    _write(to / "losses.csv", losses(with_studies(folder, found["solutions"])))
    _write(to / "seconds.csv", seconds(folder))
    if folder.name in GALLERY:
        take_for_gallery(folder, to)
    made = about(folder, found["solutions"])
    (to / "about.json").write_text(json.dumps(made, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def take_for_gallery(folder: Path, to: Path) -> None:
    """Copy figures and report page as well, and write what was planned and the directions' verdicts."""
    gallery = ROOT / "docs" / "gallery" / folder.name
    shutil.rmtree(gallery, ignore_errors=True)
    gallery.mkdir(parents=True)
    for figure in sorted((folder / "figures").glob("*.png")):
        shutil.copy(figure, gallery)
    shutil.copy(folder / "report.html", gallery)
    _write(to / "plan.csv", planned(folder))
    names = ["dataset", "model", "recipe", "seed", "solution", "probe", "k"]
    found = {
        n: tables.read(folder / "tables" / f"{n}.parquet", n).to_pandas() for n in ("asymmetry", "directions")
    }
    of_direction = [c for c in ("settled", "confidence", "images") if c in found["directions"]]
    rows = found["asymmetry"].merge(found["directions"][[*names, *of_direction]], on=names, validate="1:1")
    _write(
        to / "directions.csv", rows[[*names, "status", "c_star", "asymmetry_index", "radius", *of_direction]]
    )


def planned(folder: Path) -> pd.DataFrame:
    """Return jobs, hours and memory of each rule: as the cost model has them, and as they were.

    Of the jobs that were measured; a run may have ended before all jobs of its config were done.
    """
    config = ROOT / CONFIGS[folder.name]
    with contextlib.chdir(folder.parents[1]):
        jobs, experiment = plan.read_jobs(config), plan.experiment_of(config)
        found = [(job, plan.took(job.benchmark, job.log)) for job in jobs]
    measured = [(job.rule, took) for job, took in found if took is not None]
    before = [
        dataclasses.replace(job, todo=took is not None, benchmark=None, log=None) for job, took in found
    ]
    rows = {row.rule: row for row in plan.price(before, experiment, local=True).rows if row.todo}
    table = []
    for rule, row in rows.items():
        each = [took for name, took in measured if name == rule]
        table.append(
            {
                "rule": rule,
                "jobs": row.todo,
                "planned_hours": row.core_hours,
                "hours": sum(s for s, _ in each) / plan.HOUR,
                "planned_mb": row.memory_mb,
                "mb": max(mb for _, mb in each) or float("nan"),
            }
        )
    return pd.DataFrame(table)


_TABLES = ("verdicts", "claims", "solutions")
_SHOWN = ["number", "claim", "scope", "effect", "low", "high", "unit", "n", "p_value", "verdict", "note"]


def with_studies(folder: Path, solutions: pd.DataFrame) -> pd.DataFrame:
    """Return the solutions of a run of the gallery with those of its studies; of others as they are."""
    if folder.name not in GALLERY:
        return solutions  # a sampled study has a setting for each run
    studies = tables.about(folder / "tables" / "verdicts.parquet")["config"]["studies"]
    more = [tables.read(folder / "tables" / f"{name}.parquet", "study").to_pandas() for name in studies]
    return pd.concat([solutions, *more], ignore_index=True).drop_duplicates(measures.SOLUTION)


def losses(solutions: pd.DataFrame) -> pd.DataFrame:
    """Return mean losses with their t intervals by setting and solution."""
    rows = []
    names = ["dataset", "model", "recipe", "solution"]
    for key, part in solutions.groupby(names, sort=True):
        row = dict(zip(names, key, strict=True)) | {"n": len(part)}
        for loss in ("train_loss", "test_loss", "gradient_gain"):
            interval = stats.mean_interval(part[loss].dropna())
            low = max(0.0, interval.low)  # none of the three is ever below 0
            row |= {loss: interval.estimate, f"{loss}_low": low, f"{loss}_high": interval.high}
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


def there(runs: dict[str, str] = RUNS) -> dict[str, str]:
    """Return those of some runs that there are tables of, each with its name for readers."""
    return {run: words for run, words in runs.items() if (HERE / run / "verdicts.csv").is_file()}


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


def effect(row: dict[str, Any]) -> str:
    """Return a row's effect with its unit and interval."""
    return f"{number(row['effect'])} {row['unit']} ({number(row['low'])} to {number(row['high'])})"


def verdict(text: str) -> str:
    """Return a verdict, in bold where it is decided."""
    return f"**{text}**" if text in agreement.DECIDED else text


def verdicts_block() -> str:
    """The twelve verdicts of all runs side by side, and how they agree with the first."""
    runs = there() | there({LARGE: GALLERY[LARGE]})
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
        name = runs[run][0].upper() + runs[run][1:]
        sentences.append(
            f"- {name}: of {decided} claims that the first run decides, {same} have the "
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
        line = {
            "row": f"`{row['claim']}` {row['scope']}",
            "effect": effect(row),
            "n": row["n"],
            "p": p_text(row["p_value"]),
        }
        rows.append(line | {"verdict": _in_runs([rows_of[run].get(key, NO_ROW)["verdict"] for run in runs])})
    own = [read(run, "verdicts").set_index("number").loc[which] for run in runs]
    of_claim = {"row": f"**claim {which}**, p adjusted", "p": p_text(own[0]["p_adjusted"])}
    of_claim["verdict"] = _in_runs([one["verdict"] for one in own])
    rows.append(dict.fromkeys(rows[0], "") | of_claim)
    parts = []
    if len(first) <= MOST_NOTES:
        parts = [f"Notes of the first run:\n\n{_notes(row['note'])}" for row in first.values() if row["note"]]
    told = [(words, _doubts(rows_of[run])) for run, words in runs.items()]
    if not (parts and told[0][1]):  # else they are there already
        parts += [_told(words, found) for words, found in told if found][:1]
    return "\n\n".join([markdown(rows), *parts])


LARGE = "cifar10"
"""The run whose verdicts stand beside those of the first in the table of all claims."""
MOST_NOTES = 1
"""Of a claim that more rows decide, their notes are in the report alone, but for `DOUBTS`."""
DOUBTS = ("no minimum: ", "the loss rises by less than ", "with refreshed batch norm ")
"""What such parts of a note begin with as make a row's verdict less than it seems."""
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
    return "\n".join(f"- {part}" for part in text.split("; "))


def _doubts(rows: dict[tuple[str, str], dict[str, Any]]) -> list[tuple[str, str]]:
    """Return such parts of the notes of rows as begin as `DOUBTS` do, each with the row it is of."""
    return [
        (f"`{claim}` {scope}", part)
        for (claim, scope), row in rows.items()
        for part in ("" if pd.isna(row["note"]) else row["note"]).split("; ")
        if part.startswith(DOUBTS)
    ]


def _told(run: str, found: list[tuple[str, str]]) -> str:
    """Write what `_doubts` found in a run: how many solutions are no minimum, then the rest."""
    first = DOUBTS[0]
    short = [(row, part.removeprefix(first)) for row, part in found if part.startswith(first)]
    counts = [f"- {row}: {part.partition(', where ')[0]}" for row, part in short]
    rest = [f"- {row}: {part}" for row, part in found if not part.startswith(first)]
    intro = (
        f"In the run *{run}*, some solutions are no minimum. The train loss still falls by more than "
        f"{doubts.AT_MINIMUM:g} nats along the negative gradient. The list counts them, row by row."
    )
    blocks = [(intro, counts), (f"The notes of the run *{run}* also say:", rest)]
    return "\n\n".join(f"{words}\n\n" + "\n".join(lines) for words, lines in blocks if lines)


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


def losses_block(run: str = "") -> str:
    """Losses of the solutions of a run, by default the first: means with intervals."""
    frame = read(run or next(iter(there())), "losses")
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
            line[head] = number(row[key])
            if row["n"] > 1:
                line[head] += f" ({number(row[f'{key}_low'])} to {number(row[f'{key}_high'])})"
        rows.append(line | {"n": row["n"]})
    return markdown(rows)


def deciding_block(run: str) -> str:
    """All rows that decide a claim in a run."""
    rows = []
    for row in read(run, "deciding").sort_values("number", kind="stable").to_dict("records"):
        line = {"claim": row["number"], "row": f"`{row['claim']}` {row['scope']}"}
        line |= {"effect": effect(row), "n": row["n"], "p": p_text(row["p_value"])}
        rows.append(line | {"verdict": verdict(row["verdict"])})
    return markdown(rows)


def notes_block(text: str) -> str:
    """What the notes of the rows say that decide a claim: of a run and a claim's number."""
    run, which = text.split()
    return "\n".join(_notes(row["note"]) for row in _deciding(run, int(which)).values() if row["note"])


def plan_block(run: str) -> str:
    """What a run was planned to take by rule, and what it took: core-hours, and memory of the largest job."""
    frame = read(run, "plan")
    rows = [_plan_row(row) for row in frame.to_dict("records") if row["planned_hours"] >= LEAST_HOURS]
    total = {"rule": "all", "planned_mb": frame["planned_mb"].max(), "mb": frame["mb"].max()}
    return markdown([*rows, _plan_row(total | dict(frame[["jobs", "planned_hours", "hours"]].sum()))])


LEAST_HOURS = 0.01
"""Rules that were planned to take less are not shown."""


def _plan_row(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "rule": row["rule"],
        "jobs": int(row["jobs"]),
        "planned, core-hours": f"{row['planned_hours']:.2f}",
        "took": "–" if pd.isna(row["hours"]) else f"{row['hours']:.2f}",
        "took of planned": "–" if pd.isna(row["hours"]) else f"{row['hours'] / row['planned_hours']:.2f}",
        "planned memory": f"{row['planned_mb'] / 1000:.2f} GB",
        "memory": "–" if pd.isna(row["mb"]) else f"{row['mb'] / 1000:.2f} GB",
    }


def directions_block(run: str) -> str:
    """The verdict along each direction of a run, at each solution."""
    rows = []
    for row in read(run, "directions").to_dict("records"):
        line = {
            "seed": row["seed"],
            "solution": row["solution"],
            "probe": row["probe"],
            "direction": row["k"],
        }
        line |= {"Definition 1": row["status"], "c*": number(row["c_star"])}
        line |= {"index": number(row["asymmetry_index"])}
        if "images" in row:
            sure = not pd.isna(row["images"])
            line["train images"] = f"{int(row['images']):,}" if sure else "–"
            line["settled"] = ("yes" if row["settled"] else "no") if sure else "–"
        rows.append(line)
    return markdown(rows)


def sizes_block() -> str:
    """Rows that decide the same claim in the first run and in the large one, side by side."""
    runs = {next(iter(there())): "small networks", LARGE: GALLERY[LARGE]}
    found = {run: read(run, "deciding") for run in runs}
    shared = set.intersection(*(set(frame["claim"]) for frame in found.values()))
    rows = []
    for run, frame in found.items():
        for row in frame[frame["claim"].isin(shared)].to_dict("records"):
            line = {
                "claim": row["number"],
                "row": f"`{row['claim']}`",
                "where": f"{runs[run]}: {row['scope']}",
            }
            rows.append(line | {"effect": effect(row), "n": row["n"], "verdict": verdict(row["verdict"])})
    return markdown(sorted(rows, key=lambda row: (row["claim"], row["row"])))


def about_block(*which: str) -> str:
    """What made each run, or some of them."""
    rows = []
    for run, words in ({run: GALLERY[run] for run in which} or there()).items():
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
    "deciding": deciding_block,
    "notes": notes_block,
    "plan": plan_block,
    "directions": directions_block,
    "sizes": sizes_block,
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
