"""npz files: what they hold is checked before it is read."""

import io
import zipfile

import numpy as np
import pytest
import torch
from source_images import chw, fails, pictures, save_npz
from valleys.data.sources.load import load_source
from valleys.errors import ValleysError


def test_numpy(tmp_path):
    images, labels = pictures(7), np.array([0, 1, 4, 0, 1, 2, 3], dtype=np.uint8)
    train, test = load_source(save_npz(tmp_path, train=(images, labels)))
    assert torch.equal(train.images, chw(images))
    assert train.labels.tolist() == labels.tolist()
    assert train.labels.dtype == torch.int64
    assert (train.classes, test.classes, len(test)) == (5, 5, 6)


def test_numpy_grey(tmp_path):
    images, labels = pictures(3, channels=1), np.array([0, 1, 1])
    train, _ = load_source(save_npz(tmp_path, train=(images, labels), test=(images, labels)))
    assert train.in_shape == (1, 5, 4)
    assert torch.equal(train.images[:, 0], torch.from_numpy(images))


LABELS = np.array([0, 1, 2])


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ((pictures(3).astype(np.float32), LABELS), ["float32", "uint8"]),
        ((pictures(3)[:, 0, 0], LABELS), ["(3, 3)", "(N, H, W)"]),
        ((pictures(3, height=0), LABELS), ["(3, 0, 4, 3)"]),
        ((np.zeros((3, 3, 8, 8), np.uint8), LABELS), ["channels must come last"]),
        ((pictures(3), LABELS.astype(float)), ["float64", "integers"]),
        ((pictures(3), LABELS[:, None]), ["(3, 1)"]),
        ((pictures(3), LABELS[:2]), ["3 images but 2 labels"]),
        ((pictures(3), np.array([0, -1, 2])), ["train.npz, image 1", "the label is -1", "0 or more"]),
        ((pictures(3), np.array([0, 0, 0])), ["two classes"]),
        ((pictures(3), np.array([0, 10**9, 5])), ["image 1", "1000000000", "from 0"]),
        ((pictures(0), LABELS[:0]), ["train", "no images"]),
        ((np.array([{}, {}, {}]), LABELS), ["train.npz", "pickled"]),
    ],
)
def test_numpy_contents(tmp_path, part, words):
    fails(save_npz(tmp_path, train=part), *words)


def test_numpy_files(tmp_path):
    spec = save_npz(tmp_path)
    path = tmp_path / "test.npz"
    whole = path.read_bytes()
    for damaged in (whole[:100], whole[:-10], b"", b"not a zip"):
        path.write_bytes(damaged)
        fails(spec, path, "npz")
    flipped = bytearray(whole)
    flipped[whole.index(b"\x93NUMPY") + 200] ^= 4
    path.write_bytes(flipped)
    fails(spec, path, "damaged")
    np.savez(path, images=pictures(3), label=LABELS)
    fails(spec, path, "lacks the array 'labels'", "images, label")
    with path.open("wb") as file:
        np.save(file, LABELS)
    fails(spec, path, "not an npz archive")
    path.unlink()
    fails(spec, path, "does not exist")


def test_a_numpy_file_that_unpacks_to_more_than_is_allowed(tmp_path):
    images = np.zeros((4000, 32, 32, 3), np.uint8)  # 12 MB that take 12 kB
    np.savez_compressed(tmp_path / "train.npz", images=images, labels=np.arange(4000) % 3)
    spec = save_npz(tmp_path, test=(pictures(3, height=32), LABELS))
    np.savez_compressed(tmp_path / "train.npz", images=images, labels=np.arange(4000) % 3)
    with pytest.raises(ValleysError, match=r"train.npz declares 0.0123 GB; execution.max_data_gb is 0.01"):
        load_source(spec, max_bytes=10e6)


def test_a_numpy_header_that_declares_more_than_its_file_has(tmp_path, monkeypatch):
    spec = save_npz(tmp_path)
    with zipfile.ZipFile(tmp_path / "train.npz", "w") as archive:
        for name, dtype, shape in (("images", "|u1", (10**9, 64, 64, 3)), ("labels", "<i8", (10**9,))):
            content = io.BytesIO()
            header = {"descr": dtype, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(content, header)
            archive.writestr(f"{name}.npy", content.getvalue())
    monkeypatch.setattr(np.lib.format, "read_array", lambda *a, **k: pytest.fail("was read"))
    with pytest.raises(ValleysError, match=r"train.npz declares 1.23e\+04 GB"):
        load_source(spec, max_bytes=16e9)
