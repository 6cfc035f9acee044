"""Input made to do harm: it is refused in one line, or is plain data; nothing of it is ever run."""

import io
import logging
import os
import pickle
import struct
import subprocess
import sys
import zipfile
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from valleys import errors
from valleys.cli.commands import main, show_claims
from valleys.config.schema import check
from valleys.costs import plan, plan_text
from valleys.data.sources.load import load_source
from valleys.errors import ValleysError
from valleys.execution import jobs
from workflow_runs import ROOT, changed, load, snakemake

pytestmark = pytest.mark.slow

SMOKE = load("config/smoke.yaml")
SHELL = "a b é $(touch pwned) `touch pwned` 'q\" ; touch pwned & | > < * ? ! # ~ \\"
"""Whatever a shell would act on, and what cuts a word in two."""


def test_a_tag_in_the_config_runs_nothing(tmp_path):
    path, made = tmp_path / "c.yaml", tmp_path / "pwned"
    path.write_text(f'name: !!python/object/apply:os.system ["touch {made}"]\n')
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow" / "scripts")}
    common = {"capture_output": True, "text": True, "cwd": tmp_path, "env": environment}
    for command in ("plan", "claims"):
        done = subprocess.run([sys.executable, "-m", "valleys", command, str(path)], **common)
        assert done.returncode == 1
        assert done.stderr.startswith(f"error: config file {path} cannot be read")
        assert done.stderr.count("\n") == 1
    words = ["-m", "snakemake", "-n", "--snakefile", str(ROOT / "Snakefile"), "--configfile", str(path)]
    done = subprocess.run([sys.executable, *words], **common)
    assert done.returncode == 1
    assert f"error: config file {path} cannot be read" in done.stderr
    assert not made.exists()


def test_a_template_in_the_place_of_a_config_runs_nothing(tmp_path):
    """Snakemake evaluates YTE templates; of --configfile it does so before it reads the Snakefile."""
    made = tmp_path / "pwned"
    template = f"__use_yte__: true\n__definitions__: ['import os', 'os.mkdir(\"{made}\")']\n"
    words = [sys.executable, "-m", "snakemake", "-n", "--snakefile", str(ROOT / "Snakefile")]
    for text in (template, template.replace("__use_yte__", '"\\x5f_use_yte__"')):
        (tmp_path / "config.yaml").write_text(text)
        for more in ([], ["--configfile", "config.yaml"]):
            done = subprocess.run([*words, *more], capture_output=True, text=True, cwd=tmp_path)
            assert done.returncode == 1
            assert "config file config.yaml: __use_yte__ makes it a template" in done.stdout + done.stderr
            assert not made.exists()
    with pytest.raises(ValleysError, match="__use_yte__ makes it a template"):
        plan.make(tmp_path / "config.yaml")
    assert not made.exists()


@pytest.mark.parametrize("block", ["models", "datasets"])
def test_a_config_runs_no_code_before_a_job_needs_it(tmp_path, monkeypatch, block):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w').close()\ndef make(): ...\n")
    for factory, kwargs in (("os:system", {"command": "touch pwned"}), ("nets:make", {})):
        spec = {"factory": factory, "kwargs": kwargs}
        name = {"models": "mlp", "datasets": "digits"}[block]
        given = {**spec, "source": "callable"} if block == "datasets" else spec
        config = changed(SMOKE, studies={}, **{f"{block}__{name}": given})
        status, text = snakemake(tmp_path, config, "-n")
        assert (status == 0) is (factory != "os:system"), text
        if status:
            assert "os is a module of Python's standard library" in text
        else:
            told = plan_text.as_text(plan.make(tmp_path / "config-under-test.yaml"))
            assert ("taken for a PreResNet-20: network mlp" in " ".join(told.split())) is (block == "models")
        assert {path.name for path in tmp_path.iterdir()} <= {
            "nets.py",
            "config-under-test.yaml",
            ".snakemake",
        }


NAMES = ["..", ".", "../up", "a/../../up", "/etc", "a/b", "a\\b", "a b", "é", "$(id)", "a;b", "{x}", "-n", ""]
NAMES += ["a\n", "a\0", "*", "~", "<b>", "a'b", 'a"b', "a|b", "%2e%2e"]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_leave_their_folder_or_mean_something_to_a_shell_are_refused(name):
    blocks = ["datasets", "models", "recipes", "probes", "lines", "planes", "studies"]
    bad = [SMOKE | {"name": name}]
    bad += [SMOKE | {block: SMOKE[block] | {name: next(iter(SMOKE[block].values()))}} for block in blocks]
    bad += [changed(SMOKE, grid=[SMOKE["grid"][0] | {key: name}]) for key in ("dataset", "model", "recipe")]
    for config in bad:
        with pytest.raises(ValleysError, match="config: ") as caught:
            check(config)
        assert "\n" not in str(caught.value)


def test_paths_reach_no_shell(tmp_path):
    """A data set's path, and the folder of the run, may hold anything that a file's name can."""
    folder = tmp_path / f"{{seed}} {{{{x}}}} %s {SHELL}"  # braces too: Snakemake takes them for wildcards
    folder.mkdir()
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        images = rng.integers(0, 256, (8, 8, 8), dtype=np.uint8)
        np.savez(folder / f"{part} {SHELL}.npz", images=images, labels=np.arange(8) % 2)
    paths = {part: str(folder / f"{part} {SHELL}.npz") for part in ("train", "test")}
    config = changed(SMOKE, datasets__digits={"source": "numpy", **paths})
    target = "results/smoke/data/digits/train.safetensors"
    status, text = snakemake(folder, config, target, "--cores", "1")
    assert status == 0, text
    assert (folder / target).is_file()
    assert not list(tmp_path.rglob("pwned*"))


class Malicious:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


def test_a_pickle_in_the_place_of_data_is_not_loaded(tmp_path):
    made = tmp_path / "made"
    content = pickle.dumps({"data": Malicious(str(made)), "labels": [0]})
    for folder, names in (
        ("cifar-10-batches-py", [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"]),
        ("cifar-100-python", ["train", "test", "meta"]),
    ):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).write_bytes(content)
    for source in ("cifar10", "cifar100"):
        with pytest.raises(ValleysError, match="cannot be read from the root"):
            load_source({"source": source, "root": str(tmp_path)})
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(ValleysError, match="cannot be read as an npz file"):
        load_source({"source": "numpy", "train": str(path), "test": str(path)})
    assert not made.exists()


def png(width, height):
    """A small file that says it is an image of that size."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


def folder_of(tmp_path, content):
    """A folder of images, all of them of one content."""
    for part in ("train", "test"):
        for label in ("a", "b"):
            (tmp_path / part / label).mkdir(parents=True)
            (tmp_path / part / label / "x.png").write_bytes(content)
    return {"source": "image_folder", "size": 224, **{p: str(tmp_path / p) for p in ("train", "test")}}


def encoded(size, **how):
    stream = io.BytesIO()
    Image.new("RGB", size).save(stream, **how)
    return stream.getvalue()


def tiff(*more):
    """A TIFF of 8 x 8 pixels, with more tags (number, value)."""
    tags = [(256, 8), (257, 8), (258, 8), (259, 5), (262, 1), (277, 1), *more]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + b"x" * 200


ABSURD = {
    "EPS, for which a program would be started": (encoded((8, 8), format="EPS"), "it is none of BMP, GIF"),
    "a strip that becomes long": (encoded((100_000, 1), format="PNG"), "which become 22400000 x 224"),
    "a strip of gigabytes": (
        tiff((273, 150), (278, 8), (279, 4_000_000_000)),
        "strip of 4,000,000,000 bytes",
    ),
    "tiles": (tiff((322, 65536), (323, 65536), (324, 150), (325, 64)), "tiles of 65536 x 65536 pixels"),
    "PPM": (b"P6 100000 100000 255\n", "exceeds limit"),
}


@pytest.mark.parametrize("case", ABSURD)
def test_images_that_are_not_decoded(tmp_path, case, monkeypatch):
    content, message = ABSURD[case]
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("started a program"))
    with pytest.raises(ValleysError, match=rf"x\.png cannot be decoded as an image .*{message}") as caught:
        load_source(folder_of(tmp_path, content))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "MPO", "PNG", "PPM", "TIFF", "WEBP"])
def test_usual_images_are_decoded(tmp_path, kind):
    train, _ = load_source(folder_of(tmp_path, encoded((300, 200), format=kind)))
    assert train.in_shape == (3, 224, 224)


def test_pipes_and_devices_in_the_place_of_files_are_not_opened(tmp_path):
    """To open one would wait for ever, or read without end."""
    spec = folder_of(tmp_path, encoded((8, 8), format="PNG"))
    os.mkfifo(tmp_path / "train" / "a" / "y.png")
    with pytest.raises(ValleysError, match=r"y\.png is a pipe; remove it"):
        load_source(spec)
    os.mkfifo(tmp_path / "pipe.parquet")
    for source in ("numpy", "parquet"):
        for path, what in ((tmp_path / "pipe.parquet", "pipe"), ("/dev/zero", "device")):
            with pytest.raises(ValleysError, match=f"the train file {path} is a {what}"):
                load_source({"source": source, "train": str(path), "test": str(path)})
    with pytest.raises(ValleysError, match=r"pipe\.parquet is a pipe"):
        load_source({"source": "parquet", "train": f"{tmp_path}/*.parquet", "test": "x"})
    for read in (plan.make, show_claims):
        with pytest.raises(ValleysError, match=r"config file .*pipe\.parquet is a pipe"):
            read(tmp_path / "pipe.parquet")


def test_arrays_and_tables_that_declare_too_much(tmp_path):
    """A small file may stand for anything."""
    images, labels = np.zeros((4, 8, 8), np.uint8), np.arange(4) % 2
    np.savez(tmp_path / "a.npz", images=images, labels=labels)
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["images.npy"] = members["images.npy"].replace(b"(4, 8, 8)", b"(9, 8, 8)")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    both = {part: str(tmp_path / "a.npz") for part in ("train", "test")}
    with pytest.raises(ValleysError, match="images are 576 bytes by their header, and 384 are in the file"):
        load_source({"source": "numpy", **both})
    table = pa.table({"label": pa.array(np.zeros(100_000, np.int64)), "image": [b"x"] * 100_000})
    pq.write_table(table, tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 10_000
    both = {part: str(tmp_path / "a.parquet") for part in ("train", "test")}
    with pytest.raises(ValleysError, match=r"a\.parquet declares 0\.0008 GB; execution\.max_data_gb"):
        load_source({"source": "parquet", **both}, max_bytes=1e5)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 中 \U0001f600", "plain é 中 \U0001f600"),
        ("\x1b]0;title\x07\x1b[2J", r"\x1b]0;title\x07\x1b[2J"),
        ("\x9b31m\x7f\x00\r", r"\x9b31m\x7f\x00\r"),
        ("abc\u202egnp.exe\u2066", r"abc\u202egnp.exe\u2066"),
        ("a\u200b\ufeff\u2028b", r"a\u200b\ufeff\u2028b"),
        ("name\udcff", r"name\udcff"),
        ("two\nlines\t", "two\nlines\t"),
    ],
)
def test_what_steers_a_terminal_is_written_out(text, shown):
    assert errors.shown(text) == shown
    assert str(ValleysError(text)) == shown
    record = logging.LogRecord("valleys", logging.INFO, "x", 1, "%s", (text,), None)
    assert jobs._Formatter("%(message)s").format(record) == shown


def test_an_image_that_says_it_is_huge_is_refused_before_it_is_decoded(tmp_path):
    for part in ("train", "test"):
        for label in ("a", "b"):
            (tmp_path / part / label).mkdir(parents=True)
            (tmp_path / part / label / "x.png").write_bytes(png(60_000, 60_000))
    spec = {"source": "image_folder", "size": 8, **{p: str(tmp_path / p) for p in ("train", "test")}}
    with pytest.raises(ValleysError, match=r"x\.png cannot be decoded as an image .*limit") as caught:
        load_source(spec)
    assert "\n" not in str(caught.value)


def test_what_may_not_be_read_or_written_is_one_line():
    """Root may do all, so the errors are made here; `jobs.job` and the command line print these lines."""
    error = PermissionError(13, "Permission denied", "results/x/logs")
    assert jobs.denied(error) == (
        "results/x/logs: Permission denied; give this user the right to read and write it"
    )
    moved = PermissionError(1, "Operation not permitted", "a", None, "b")
    assert jobs.denied(moved).startswith("a to b: Operation not permitted; ")
    assert jobs.denied(PermissionError("no")).startswith("a file: no; ")


def test_a_command_that_is_denied_says_so_in_one_line(monkeypatch, capsys):
    def denied(*_):
        raise PermissionError(13, "Permission denied", "theirs/claims.parquet")

    monkeypatch.setattr("valleys.cli.commands.show_claims", denied)
    assert main(["claims", "config.yaml"]) == 1
    text = capsys.readouterr().err
    assert text.startswith("error: theirs/claims.parquet: Permission denied; give this user")
    assert text.count("\n") == 1
