"""What is known of data before a job has read them."""

import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from priced import CELL, FOLDER, PAPER, of, prepared, with_data
from valleys.costs import datasets
from valleys.costs.datasets import DECODERS
from valleys.costs.jobs import Costs
from valleys.costs.work import Data
from valleys.data.options import DATASET_OPTIONS
from valleys.data.sources import base


@pytest.mark.slow
def test_decoding_takes_threads_and_little_memory():
    large = of(PAPER, datasets={**PAPER["datasets"], "folder": FOLDER})
    small = of(PAPER, datasets={**PAPER["datasets"], "folder": FOLDER | {"max_train": 1000, "max_test": 100}})
    assert [found.decoders("folder") for found in (large, small)] == [DECODERS, 1]
    assert large.decoders("cifar10") == 1  # comes as arrays
    prepare = large("prepare_dataset", {"dataset": "folder"})
    assert prepare.disk > 200e9
    assert prepare.memory_mb < 3_000
    assert prepare.seconds < 0.5 * large.datasets.decoding("folder")


def test_data_are_known_limited_counted_or_assumed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = of(
        PAPER,
        datasets={
            **PAPER["datasets"],
            "some": {"source": "svhn", "root": "x", "max_train": 100},
            "mine": {"source": "parquet", "train": "a", "test": "b", "size": 48, "classes": 7},
            "part": {"source": "image_folder", "train": "a", "test": "b", "size": 64}
            | {"max_train": 500, "max_test": 50, "grayscale": True},
        },
    )
    assert found.data("stl10") == Data(5_000, 8_000, (3, 96, 96), 10)
    assert found.data("some").train == 100
    assert found.data("some").test == 26_032
    assert found.data("mine") == Data(50_000, 10_000, (3, 48, 48), 7, counted=False)
    assert found.data("part") == Data(500, 50, (1, 64, 64), 1000)


def test_prepared_data_are_looked_at(tmp_path, monkeypatch):
    import torch
    from valleys.data.cache import save_split
    from valleys.data.split import Split

    monkeypatch.chdir(tmp_path)
    folder = Path("results/smoke/data/digits")
    folder.mkdir(parents=True)
    for part, n in (("train", 30), ("test", 9)):
        images = torch.zeros(n, 3, 5, 4, dtype=torch.uint8)
        labels = torch.arange(n) % 4
        save_split(folder / f"{part}.safetensors", Split(images, labels, 4, (0.0,) * 3, (1.0,) * 3))
    assert of().data("digits") == Data(30, 9, (3, 5, 4), 4)
    (folder / "test.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    assert of().data("digits").train == 200  # as the config has it


def test_a_split_by_seed_is_of_all_images_and_limited_after_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = {"source": "digits", "train_size": 800, "max_train": 100}
    fixed, own = with_data(spec), with_data({**spec, "split": "by_seed"})
    assert fixed.data("digits") == own.data("digits") == Data(100, 997, (1, 8, 8), 10)
    assert fixed("prepare_dataset", CELL).disk == fixed.data("digits").bytes
    assert own("prepare_dataset", CELL).disk == Data(800, 997, (1, 8, 8), 10).bytes
    assert own("split_dataset", CELL).disk == own.data("digits").bytes + 8 * 100
    prepared(90, 30)  # two classes
    own = with_data({**spec, "split": "by_seed", "max_test": 10})
    assert own.data("digits") == Data(90, 10, (3, 8, 8), 2)
    assert own.datasets.before_seeds("digits") == Data(90, 30, (3, 8, 8), 2)


def test_images_that_stay_on_disk_take_no_memory_of_a_split():
    spec = {**FOLDER, "split": "by_seed"}
    held, stored = (with_data(spec, execution__resident_mb=mb) for mb in (10**6, 1))
    size = held.datasets.before_seeds("digits").bytes / 1e6
    assert held("split_dataset", CELL).memory_mb > 2 * size > 100_000
    assert stored("split_dataset", CELL).memory_mb < 1_000


def images(folder, per_class, classes="ab", suffix=".png"):
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for k in range(per_class):
            (folder / name / f"{k}{suffix}").touch()


TREE = {"source": "image_folder", "train": "train", "test": "test", "size": 8}


def test_images_of_a_folder_are_counted_before_the_run(tmp_path, monkeypatch):
    """Never the 203 GB that ImageNet takes, for a few files."""
    monkeypatch.chdir(tmp_path)
    images(tmp_path / "train", 120)
    images(tmp_path / "test", 30, suffix=".JPEG")
    (tmp_path / "train" / "a" / "deep").mkdir()
    (tmp_path / "train" / "a" / "deep" / "one.webp").touch()
    (tmp_path / "train" / "a" / "notes.txt").touch()
    (tmp_path / "train" / "beside.png").touch()
    found = with_data(TREE)
    assert found.data("digits") == Data(241, 60, (3, 8, 8), 2)
    assert found.mem_mb("prepare_dataset", CELL) < 2_000
    assert found.mem_mb("train_sgd", CELL) < 2_000
    assert found.runtime("train_sgd", CELL) <= 12
    assert found.decoders("digits") == 1
    limited = with_data({**TREE, "max_train": 100, "grayscale": True})
    assert limited.data("digits") == Data(100, 60, (1, 8, 8), 2)


def test_a_large_folder_is_counted_in_part(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(base, "MOST_NAMES", 40)
    images(tmp_path / "train", 15, classes="abcdef")
    images(tmp_path / "test", 3, classes="abcdef")
    found = with_data(TREE).data("digits")
    assert (found.train, found.test, found.classes, found.counted) == (90, 18, 6, False)


@pytest.mark.parametrize("channels", [None, 1, 3])
def test_the_header_of_an_npz_file_is_read_and_not_its_arrays(tmp_path, monkeypatch, channels):
    monkeypatch.chdir(tmp_path)
    for part, n in (("train", 30), ("test", 7)):
        shape = (n, 5, 6) if channels is None else (n, 5, 6, channels)
        np.savez_compressed(f"{part}.npz", images=np.zeros(shape, np.uint8), labels=np.zeros(n, np.int64))
    spec = {"source": "numpy", "train": "train.npz", "test": "test.npz", "classes": 4}
    monkeypatch.setattr(np, "load", None)
    assert with_data(spec).data("digits") == Data(30, 7, (channels or 1, 5, 6), 4)


def test_the_footers_of_parquet_files_are_added_up(tmp_path, monkeypatch):
    import pyarrow as pa
    import pyarrow.parquet as pq

    monkeypatch.chdir(tmp_path)
    for k, n in enumerate((10, 20, 5)):
        pq.write_table(pa.table({"img": [b"x"] * n, "label": [0] * n}), f"part-{k}.parquet")
    spec = {"source": "parquet", "train": "part-[01].parquet", "test": ["part-2.parquet"]}
    assert with_data({**spec, "size": 16}).data("digits") == Data(30, 5, (3, 16, 16), 10)
    unknown = with_data(spec).data("digits")
    assert (unknown.train, unknown.test, unknown.counted) == (
        30,
        5,
        False,
    )  # of what size?
    monkeypatch.setattr(base, "MOST_FILES", 1)
    assert with_data({**spec, "size": 16}).data("digits") == Data(20, 5, (3, 16, 16), 10, False)


def files_of(source, n):
    """Write n train and n / 5 test images of two classes, or rows; return the entry of a config."""
    import pandas as pd

    for part, count in (("train", n), ("test", n // 5)):
        if source == "image_folder":
            images(Path(part), count // 2)
        elif source == "numpy":
            arrays = {"images": np.zeros((count, 16, 16, 3), np.uint8), "labels": np.arange(count) % 2}
            np.savez(f"{part}.npz", **arrays)
        elif source == "parquet":
            pd.DataFrame({"image": [b"x"] * count, "label": [0] * count}).to_parquet(f"{part}.parquet")
        else:
            pd.DataFrame({"a": np.zeros(count), "y": np.zeros(count)}).to_csv(f"{part}.csv", index=False)
    ending = {"image_folder": "", "numpy": ".npz", "parquet": ".parquet", "table": ".csv"}[source]
    spec = {"source": source, "train": f"train{ending}", "test": f"test{ending}"}
    return spec | {
        "image_folder": {"size": 16},
        "numpy": {},
        "parquet": {"size": 16, "classes": 2},
        "table": {"task": "regression", "labels": "y"},
    }[source]  # fmt: skip


@pytest.mark.parametrize("source", ["image_folder", "numpy", "parquet", "table"])
def test_what_is_asked_for_200_of_anything_is_little_and_stays_when_they_are_prepared(
    source, tmp_path, monkeypatch
):
    """Before the run as after it: files, the header or the footer say how many there are."""
    monkeypatch.chdir(tmp_path)
    spec, shape = files_of(source, 200), (1,) if source == "table" else (3, 16, 16)
    more = {"recipes__quick__loss": {"name": "mse"}, "recipes__quick__augment": {}} if shape == (1,) else {}
    found = with_data(spec, **more)
    assert (found.data("digits").train, found.data("digits").test) == (200, 40)
    assert found.data("digits").counted
    jobs = {
        "train_sgd": {},
        "evaluate": {},
        "directions": {"probe": "gradient"},
        "probe": {"bundle": "uniform"},
    }
    asked = {rule: found.mem_mb(rule, CELL | w) for rule, w in jobs.items()}
    assert max(asked.values()) < 1_500
    assert all(found.runtime(rule, CELL | w) <= 12 for rule, w in jobs.items())
    if source != "table":
        prepared(200, 40, shape=shape)
        assert {rule: found.mem_mb(rule, CELL | w) for rule, w in jobs.items()} == asked


def test_a_job_is_priced_with_one_look_at_its_data(tmp_path, monkeypatch):
    """Plans of 50,000 jobs ask thirty times a job."""
    monkeypatch.chdir(tmp_path)
    found, looks = with_data(TREE), []
    stamp = datasets._stamp
    monkeypatch.setattr(datasets, "_stamp", lambda path: looks.append(path) or stamp(path))
    found("probe", CELL | {"bundle": "uniform"})
    assert len(looks) <= 4  # two files: for the name of what is known, and for that
    found.data("digits")
    prepared(24, 6)
    assert found.data("digits").train == 24


@pytest.mark.parametrize("source", ["image_folder", "numpy", "parquet"])
@pytest.mark.parametrize("kind", ["absent", "empty", "garbage", "folder", "pipe", "bomb"])
def test_files_that_cannot_be_counted_are_left_to_their_job(tmp_path, monkeypatch, source, kind):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "bomb":  # a header that would be a gigabyte, and archives of nothing else
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(
                "images.npy", b"\x93NUMPY\x02\x00" + (1 << 30).to_bytes(4, "little") + b" " * 10**6
            )
    elif kind != "absent":
        path.write_bytes(b"" if kind == "empty" else b"PK\x03\x04 PAR1 \x93NUMPY")
    spec = {"source": source, "train": "x", "test": "x"} | ({"size": 8} if source == "image_folder" else {})
    guess = DATASET_OPTIONS[source].size_of(spec)
    side = spec.get("size", guess.shape[-1])
    assert with_data(spec).data("digits") == Data(
        guess.train, guess.test, (3, side, side), guess.classes, False
    )


def test_originals_that_changed_count_before_what_was_prepared_from_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images(tmp_path / "train", 50)
    images(tmp_path / "test", 5)
    prepared(10, 4)
    found = with_data(TREE)
    assert found.data("digits") == Data(100, 10, (3, 8, 8), 2)
    assert found("prepare_dataset", CELL).disk == found.data("digits").bytes
    prepared(99, 10)  # by this run: then the files say it
    assert found.data("digits").train == 99
    experiment = found.experiment
    assert Costs(experiment, originals=False).data("digits").train == 99
    for folder in ("train", "test"):  # gone since: the prepared files do
        shutil.rmtree(tmp_path / folder)
    assert with_data(TREE).data("digits").train == 99
