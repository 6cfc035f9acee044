"""Break a running experiment on purpose, in every way this file knows, and compare what comes of it.

``make faults`` runs it whole (about half an hour on two cores), writes every try to
``benchmarks/results/faults.parquet`` and the table of `docs/reliability.md`. tests/workflow/test_faults.py
runs a few tries of each kind. The experiment is config/smoke.yaml; results are compared byte for byte with
those of a run that nothing disturbed.
"""

import argparse
import collections
import contextlib
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from workflow_runs import ROOT, command, load

sys.path.insert(0, str(ROOT / "workflow" / "scripts"))
sys.path.insert(0, str(ROOT / "benchmarks"))

from valleys.costs.rules import RULES
from valleys.errors import ValleysError
from valleys.storage import state, tables
from valleys.storage.weights import load_weights

SMOKE = load("config/smoke.yaml")
RESULTS = Path("results/smoke")
VARYING = ("logs", "benchmarks", "state")  # times, and what only a job under way needs
STAGES = [rule for rule in RULES if rule not in ("connect", "import_solution")]  # not in the experiment


# ---- running and comparing


def start(folder, config=SMOKE, *args, cores=2, **options):
    """Start Snakemake in a folder; its output goes to ``output.txt`` there."""
    with (Path(folder) / "output.txt").open("w") as output:
        return subprocess.Popen(
            command(folder, config, *args, "--cores", str(cores)),
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            # As at a terminal: what a shell runs in the background ignores SIGINT, and so do its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            **options,
        )


def run(folder, config=SMOKE, *args, cores=2, timeout=600):
    """Run Snakemake in a folder; return its status and output."""
    status = start(folder, config, *args, cores=cores).wait(timeout=timeout)
    return status, (Path(folder) / "output.txt").read_text()


def contents(folder):
    """The SHA-256 of every result under its final name, by path below the folder of results."""
    found = {}
    for path in sorted((Path(folder) / RESULTS).rglob("*")):
        name = path.relative_to(Path(folder) / RESULTS)
        if path.name.endswith((".tmp", ".checked")) or set(name.parts) & set(VARYING):
            continue
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):  # a run may be under way
            found[str(name)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def differences(folder, base):
    """Results that are missing, not expected, or other bytes than in an undisturbed run."""
    now = contents(folder)
    return sorted(name for name in now.keys() | base.keys() if now.get(name) != base.get(name))


# ---- damaged files


def damaged(content, chance):
    """A damaged copy of a file's bytes, and how it was damaged."""
    how = chance.choice(["bit flipped", "bit flipped", "truncated", "block of zeros", "block of noise"])
    at = chance.randrange(len(content))
    if how == "truncated":
        return content[:at], how
    copy = bytearray(content)
    if how == "bit flipped":
        copy[at] ^= 1 << chance.randrange(8)
    else:
        end = min(len(copy), at + chance.choice([16, 512, 4096]))
        copy[at:end] = bytes(end - at) if how == "block of zeros" else chance.randbytes(end - at)
    return bytes(copy), how


def readers(path):
    """What reads a stored artefact, by its kind; nothing where nothing in the workflow does."""
    if path.suffix == ".parquet":
        return {"table": lambda: [(name := tables.name_in(path)), tables.read(path, name).to_pylist()]}
    if path.suffix == ".pt":
        return {"checkpoint": lambda: plain(state.load_checkpoint(path))}
    if path.suffix == ".safetensors" and "data" in path.parts:
        from valleys.data.cache import load_split, read_metadata

        def split(limit):
            found = load_split(path, resident_mb=limit)
            return plain([found.images[:], found.labels, found.classes, found.mean, read_metadata(path)])

        return {"data set": lambda: split(1e9), "data set left on disk": lambda: split(0)}
    if path.suffix == ".safetensors":
        return {"weights": lambda: plain(load_weights(path, ours=True))}
    return {}


def plain(value):
    """Tensors as bytes, within containers, so that contents compare."""
    import torch

    if isinstance(value, torch.Tensor):
        return (str(value.dtype), tuple(value.shape), value.contiguous().numpy().tobytes())
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def corrupt(folder, count, seed=0):
    """Damage stored artefacts of a finished run one at a time and read them; yield a row for each.

    The kinds take turns, since there are many more tables than checkpoints. Outcome ``refused``: one line
    that names the file and says what to do; ``as it was``: the very content that had been stored.
    """
    chance, kinds = random.Random(seed), collections.defaultdict(list)
    for path in sorted((Path(folder) / RESULTS).rglob("*")):
        for kind, read in readers(path).items() if path.is_file() else ():
            kinds[kind].append((path, read))
    for i in range(count):
        kind = sorted(kinds)[i % len(kinds)]
        path, read = chance.choice(kinds[kind])
        whole, before = path.read_bytes(), repr(read())
        content, how = damaged(whole, chance)
        path.write_bytes(content)
        try:
            outcome = "as it was" if repr(read()) == before else "WRONG"
        except ValleysError as error:
            text = str(error)
            helpful = str(path) in text and "\n" not in text and ("delete it" in text or "rerun" in text)
            outcome = "refused" if helpful else f"UNCLEAR {text}"
        except Exception as error:
            outcome = f"TRACEBACK {type(error).__name__}"
        finally:
            path.write_bytes(whole)
        yield {"fault": f"{kind}: {how}", "where": path.name, "outcome": outcome}


def corrupt_and_rerun(base, count, seed=0):
    """Damage an intermediate result of a finished run, run it again, do what the message says; yield rows.

    Tables, figures and report must be there in the end, and whatever is there must be as undisturbed.
    """
    chance, want = random.Random(seed), contents(base)
    paths = [name for name in want if name.startswith(("cells/", "data/", "tables/"))]
    for _ in range(count):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "run"
            shutil.copytree(base, folder)
            path = folder / RESULTS / chance.choice(paths)
            content, how = damaged(path.read_bytes(), chance)
            path.write_bytes(content)
            for later in ("report.html", "tables", "cells"):  # so that something reads it
                _remove_after(folder, path, later)
            status, text = run(folder)
            outcome, steps = "as it was", 0
            while status and steps < 3:
                steps += 1
                if "Traceback" in text or path.name not in text:
                    outcome = "UNCLEAR"
                    break
                target = path if steps == 1 else path.parent
                shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
                outcome = "refused, remade by what the message says"
                status, text = run(folder)
            rest = [n for n in differences(folder, want) if n != str(path.relative_to(folder / RESULTS))]
            # An intermediate that failed jobs lost comes back when something needs it: absent is not wrong.
            there = contents(folder)
            rest = [n for n in rest if n in there or not n.startswith(("cells/", "data/"))]
            if status or rest:
                outcome = outcome if outcome == "UNCLEAR" else f"WRONG {status} {rest[:1]}"
            yield {"fault": f"intermediate result: {how}, run again", "where": path.name, "outcome": outcome}


def _remove_after(folder, path, part):
    """Remove what is made from a damaged file."""
    root = folder / RESULTS
    if part == "report.html":
        (root / part).unlink(missing_ok=True)
    elif part == "tables" and path.parent.name != "tables":
        shutil.rmtree(root / "tables", ignore_errors=True)


# ---- kills

NAMES = ("SIGTERM", "SIGINT", "SIGKILL")
SIGNALS = {(target, name) for target in ("job", "Snakemake") for name in NAMES}


def jobs_of(process):
    """Jobs under way, of a Snakemake process: {rule: process id}."""
    found = {}
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error, IndexError):
                words = child.cmdline()
                name = Path(words[-1]).name  # a script by itself, or what hands it to the fork server
                python = Path(words[0]).name.startswith("python")
                if python and name.startswith("tmp") and name.endswith(".py"):
                    found[name.split(".")[-2]] = child.pid
    return found


def killed_once(folder, wanted, chance, delay=0.6):
    """Run until a job of a wanted rule is under way, and kill it or Snakemake; return the row, or None.

    `wanted` gives for each rule the kills that are left to try, ``{(target, signal), ...}``. None: the run
    ended before any was.
    """
    process, row = start(folder), None
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        found = {rule: pid for rule, pid in jobs_of(process).items() if wanted.get(rule)}
        if not found:
            time.sleep(0.01)
            continue
        rule = chance.choice(sorted(found))
        target, name = chance.choice(sorted(wanted[rule]))
        time.sleep(chance.uniform(0, delay))
        victim = found[rule] if target == "job" else process.pid
        if process.poll() is None and psutil.pid_exists(victim):
            os.kill(victim, getattr(signal, name))
            row = {"fault": f"{name} of {target}", "where": rule, "outcome": "?"}
            wanted[rule].discard((target, name))
        break
    process.wait(timeout=300)
    return row


def unlike(folder, want):
    """Results that are there under their final names with other bytes than they should have."""
    return [name for name, digest in contents(folder).items() if want.get(name) != digest]


def half_written(folder, want):
    """The outcome of a kill so far: what is half there, or open."""
    return f"HALF {half[0]}" if (half := unlike(folder, want)) else "?"


def in_the_end(rows, failed, wrong):
    """Yield the rows of kills with their outcomes, once the run after them has ended."""
    for row in rows:
        if failed:
            row["outcome"] = f"FAILED {failed}"
        elif row["outcome"] == "?":
            row["outcome"] = f"WRONG {wrong[0]}" if wrong else "same bytes"
        yield row


def kill(base, count, seed=0, per_run=12):
    """Kill jobs and Snakemake at random moments of every stage, running on after each; yield rows.

    Whatever is there under its final name after a kill must be what an undisturbed run has there, and so must
    everything in the end.
    """
    chance, want = random.Random(seed), contents(base)
    left, tried = dict.fromkeys(STAGES, frozenset()), 0
    while tried < count:
        if not any(left.values()):
            left = {rule: set(SIGNALS) for rule in STAGES}
        with tempfile.TemporaryDirectory() as scratch:
            rows = []
            # In the order of the work, so that each run gets a stage further than the one before.
            turns = chance.sample(
                [rule for rule in STAGES if left[rule]], k=min(per_run, sum(map(bool, left.values())))
            )
            for rule in sorted(turns, key=STAGES.index):
                row = killed_once(scratch, {rule: left[rule]}, chance)
                if row is None:  # it was past that stage
                    continue
                row["outcome"] = half_written(scratch, want)
                rows.append(row)
            status, text = run(scratch)
            failed = status and (text.strip().splitlines() or [status])[-1]
            yield from in_the_end(rows, failed, differences(scratch, want))
            strays = list((Path(scratch) / RESULTS).rglob("*.tmp"))
            locks = list(Path(scratch).glob(".snakemake/locks/*"))
            if strays or locks:
                yield {"fault": "left behind", "where": (strays + locks)[0].name, "outcome": "LEFT"}
            tried += len(rows)


def kill_and_retry(base, count, seed=0, delay=0.3, targets=()):
    """Kill jobs at random moments of every stage while Snakemake lives and tries them again; yield rows.

    Quicker than `kill`, where Snakemake ends with the job. What is asked of the results is the same.
    """
    chance, want, left, tried = random.Random(seed), contents(base), {}, 0
    while tried < count:
        if not any(left.values()):
            left = {rule: set(NAMES) for rule in STAGES}
        with tempfile.TemporaryDirectory() as scratch:
            process, rows, killed = start(scratch, SMOKE, *targets, "--retries", "9"), [], set()
            deadline = time.monotonic() + 600
            while process.poll() is None and time.monotonic() < deadline:
                found = {
                    rule: pid
                    for rule, pid in jobs_of(process).items()
                    if left.get(rule) and pid not in killed and tried + len(rows) < count
                }
                if not found:
                    time.sleep(0.01)
                    continue
                rule = chance.choice(sorted(found))
                time.sleep(chance.uniform(0, delay))
                if not psutil.pid_exists(found[rule]):
                    continue
                name = chance.choice(sorted(left[rule]))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(found[rule], getattr(signal, name))
                    killed.add(found[rule])
                    left[rule].discard(name)
                    fault, outcome = f"{name} of job, tried again", half_written(scratch, want)
                    rows.append({"fault": fault, "where": rule, "outcome": outcome})
            yield from in_the_end(rows, process.wait(timeout=60), differences(scratch, want))
            tried += len(rows)


# ---- surroundings


@contextlib.contextmanager
def small_disk(folder, megabytes):
    """A file system of a few MB at a folder, which must be empty; needs root.

    Raises
    ------
    OSError
        Where mounting is not allowed.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(words, capture_output=True).returncode:
        raise PermissionError("mounting a tmpfs is not allowed here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder, options):
    """Change a mounted file system's size or make it read-only."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def full_disk(base, scratch, megabytes):
    """The disk fills up in the middle of a run; then there is room again."""
    with small_disk(Path(scratch) / "results", megabytes):
        status, text = run(scratch)
        if status == 0:
            return "ROOM ENOUGH"
        clear = "No space left on device" in text and not _wrong_so_far(scratch, base)
        remount(Path(scratch) / "results", "size=200m")
        return _then_right(scratch, base) if clear else "UNCLEAR"


def read_only(base, scratch):
    """The results folder is read-only; then it is not."""
    with small_disk(Path(scratch) / "results", 200):
        remount(Path(scratch) / "results", "ro")
        status, text = run(scratch)
        clear = status and "is not writable; make it so or run elsewhere" in text and "Traceback" not in text
        remount(Path(scratch) / "results", "rw")
        return _then_right(scratch, base) if clear else "UNCLEAR"


def two_at_once(base, scratch, apart=0.0):
    """Two Snakemake processes are started on one folder, at the same instant or one after the other."""
    first = start(scratch)
    time.sleep(apart)
    other = Path(scratch) / "second"
    other.mkdir()
    with (other / "output.txt").open("w") as output:
        second = subprocess.Popen(
            command(scratch, SMOKE, "--cores", "1"), cwd=scratch, stdout=output, stderr=subprocess.STDOUT
        )
    codes = [process.wait(timeout=600) for process in (first, second)]
    texts = [(folder / "output.txt").read_text() for folder in (Path(scratch), other)]
    refused = [text for code, text in zip(codes, texts, strict=True) if code]
    if len(refused) > 1 or not all("another run" in t or "cannot be locked" in t for t in refused):
        return f"UNCLEAR {codes}"
    shutil.rmtree(other)
    outcome = _then_right(scratch, base)
    return "one refused, " + outcome if refused else "one after the other, " + outcome


def clock_back(base, scratch):
    """The clock is set back a day: all there is comes from the future. Snakemake says so; it is touched."""
    shutil.copytree(base, scratch, dirs_exist_ok=True)
    (Path(scratch) / RESULTS / "tables" / "curves.parquet").unlink()
    for path in (Path(scratch) / RESULTS).rglob("*"):
        os.utime(path, (time.time() + 86400,) * 2)
    status, text = run(scratch)
    if not status or "older modification time" not in text or _wrong_so_far(scratch, base):
        return "UNCLEAR"
    for path in (Path(scratch) / RESULTS).rglob("*"):
        path.touch()
    return "refused; touched, " + _then_right(scratch, base)


def moved(base, scratch):
    """A finished run is copied to another path: nothing is to be done, and nothing names the old one."""
    shutil.copytree(base, scratch, dirs_exist_ok=True)
    status, text = run(scratch, SMOKE, "-n")
    named = [
        path
        for path in (Path(scratch) / RESULTS).rglob("*")
        if path.is_file() and os.fsencode(str(base)) in path.read_bytes() and "logs" not in path.parts
    ]
    if status or "Nothing to be done" not in text or named:
        return f"WRONG {named[:1]}"
    return _then_right(scratch, base)


def _wrong_so_far(scratch, base):
    return unlike(scratch, contents(base))


def _then_right(scratch, base):
    """Run once more: what comes out must be that of the undisturbed run."""
    status, text = run(scratch)
    wrong = differences(scratch, contents(base))
    return f"FAILED {text.splitlines()[-1]}" if status else f"WRONG {wrong[0]}" if wrong else "same bytes"


def surroundings(base, times=1):
    """Each fault of the surroundings; yield rows. Those that need root are said to be left out without it."""
    kinds = {f"disk full at {mb} MB": (lambda b, s, mb=mb: full_disk(b, s, mb)) for mb in (1, 2, 3, 4)}
    kinds |= {"results folder read-only": read_only, "clock set back": clock_back, "results moved": moved}
    kinds |= {"two runs at the same instant": two_at_once}
    kinds |= {"a second run later": lambda b, s: two_at_once(b, s, 4.0)}
    for fault, call in kinds.items():
        for _ in range(times):
            with tempfile.TemporaryDirectory() as scratch:
                try:
                    outcome = call(base, scratch)
                except PermissionError as error:
                    outcome = f"not tried: {error}"
            yield {"fault": fault, "where": "run", "outcome": outcome}


# ---- the whole


def broken(row):
    """The kind of an outcome that is none of those promised (written in capitals), or nothing."""
    first = row["outcome"].split()[0]
    return first if first.isupper() else ""


def summary(rows):
    """The rows of the table in docs/reliability.md: each fault, how often, what came of it."""
    counts = collections.defaultdict(collections.Counter)
    for row in rows:
        counts[row["fault"]][
            row["outcome"].split(" ")[0] if row["outcome"].isupper() else row["outcome"]
        ] += 1
    return [
        {
            "fault": fault,
            "tried": sum(found.values()),
            "outcome": ", ".join(f"{number} {what}" for what, number in sorted(found.items())),
        }
        for fault, found in sorted(counts.items())
    ]


def main():
    """Run all, in a folder of its own; exit 1 when an outcome is none that is promised."""
    import common

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutations", type=int, default=5000)
    parser.add_argument("--reruns", type=int, default=20)
    parser.add_argument("--kills", type=int, default=120)
    parser.add_argument("--retried", type=int, default=102, help="kills of jobs that are tried again")
    parser.add_argument("--times", type=int, default=3, help="of each fault of the surroundings")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--add", action="store_true", help="to the tries on record, instead of starting anew")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rows, saved = common.rows("faults") if arguments.add else [], time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch)
        status, text = run(base)
        if status:
            sys.exit(f"the undisturbed run failed:\n{text[-2000:]}")
        kinds = (
            corrupt(base, arguments.mutations, arguments.seed),
            corrupt_and_rerun(base, arguments.reruns, arguments.seed),
            surroundings(base, arguments.times),
            kill_and_retry(base, arguments.retried, arguments.seed),
            kill(base, arguments.kills, arguments.seed),
        )
        for kind in kinds:
            for row in kind:
                rows.append(row)
                if broken(row):
                    print(row, flush=True)
                if time.monotonic() - saved > 5:  # so that a run that is stopped has something
                    common.save("faults", rows)
                    saved = time.monotonic()
            common.save("faults", rows)
    text = common.markdown(summary(rows))
    common.document("faults", text, ROOT / "docs" / "reliability.md")
    print(text)
    sys.exit(any(map(broken, rows)))


if __name__ == "__main__":
    main()
