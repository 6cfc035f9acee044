"""Folders of images: order, sizes, and files that are no images."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from source_images import chw, fails, pictures
from valleys.data.sources.load import load_source
from valleys.data.split import subset_indices
from valleys.torchvision_compat import import_torchvision


@pytest.fixture
def folders(tmp_path):
    """Two classes of PNGs, 5 high and 4 wide, in train and test."""
    images = pictures(8)
    for i, image in enumerate(images):
        folder = tmp_path / ("train" if i < 4 else "test") / ("dog" if i % 2 else "Cat")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i}.png")
    spec = {
        "source": "image_folder",
        "train": str(tmp_path / "train"),
        "test": str(tmp_path / "test"),
        "size": 4,
    }
    return spec, images, tmp_path


def test_image_folder(folders):
    spec, images, _ = folders
    train, test = load_source(spec)
    assert train.labels.tolist() == [0, 0, 1, 1]  # Cat, dog; by file name within
    assert torch.equal(
        train.images, chw(images[[0, 2, 1, 3], :4])
    )  # the shorter side is 4 already: crop only
    assert torch.equal(test.images, chw(images[[4, 6, 5, 7], :4]))
    grey, _ = load_source({**spec, "grayscale": True})
    assert grey.in_shape == (1, 4, 4)
    assert torch.equal(grey.images[0, 0], torch.tensor(np.array(Image.fromarray(images[0]).convert("L")))[:4])


@pytest.mark.parametrize(("height", "width"), [(30, 20), (20, 31), (16, 16), (7, 9), (16, 17), (17, 16)])
def test_resize_is_torchvision_s(tmp_path, height, width):
    transforms = import_torchvision("transforms")
    reference = transforms.Compose([transforms.Resize(16), transforms.CenterCrop(16)])
    image = Image.fromarray(pictures(1, height, width)[0])
    for part in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / part / name).mkdir(parents=True)
            image.save(tmp_path / part / name / "x.png")
    train, _ = load_source(
        {"source": "image_folder", "train": f"{tmp_path}/train", "test": f"{tmp_path}/test", "size": 16}
    )
    assert torch.equal(train.images[0], chw(np.asarray(reference(image))[None])[0])


@pytest.mark.parametrize("suffix", ["png", "tiff", "jpg"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_an_orientation_is_applied_on_demand_and_else_told(folders, caplog, suffix, orientation):
    """torchvision's ImageFolder leaves pixels as they are stored, but for TIFF, which Pillow turns."""
    spec, images, tmp_path = folders
    exif, path = Image.Exif(), tmp_path / "train" / "Cat" / f"0.{suffix}"
    exif[274] = orientation
    path.with_suffix(".png").unlink()
    Image.fromarray(images[0][:4]).save(path, exif=exif)
    stored = np.asarray(import_torchvision("datasets").ImageFolder(tmp_path / "train")[0][0])
    with Image.open(path) as opened:
        right = np.asarray(ImageOps.exif_transpose(opened))
    told = f"1 of 4 images have an EXIF orientation, the first {path}; it is not applied"
    assert torch.equal(load_source(spec)[0].images[:1], chw(stored[None]))
    assert (told in caplog.text) == (not np.array_equal(stored, right))
    caplog.clear()
    assert torch.equal(load_source({**spec, "upright": True})[0].images[:1], chw(right[None]))
    assert "EXIF" not in caplog.text
    grey = load_source({**spec, "upright": True, "grayscale": True})[0].images[0, 0]
    assert torch.equal(grey, torch.tensor(np.array(Image.fromarray(right).convert("L"))))


def test_a_broken_exif_turns_nothing(folders, caplog):
    spec, images, tmp_path = folders
    Image.fromarray(images[0]).save(tmp_path / "train" / "Cat" / "0.png", exif=b"Exif\0\0nonsense")
    for upright in (False, True):
        train, _ = load_source({**spec, "upright": upright})
        assert torch.equal(train.images[:1], chw(images[:1, :4]))
    assert "EXIF" not in caplog.text


def test_image_folder_subset_decodes_only_the_subset(folders):
    spec, _, tmp_path = folders
    rows = subset_indices(4, 1, 0).tolist()
    names = ["Cat/0.png", "Cat/2.png", "dog/1.png", "dog/3.png"]
    for row, name in enumerate(names):
        if row not in rows:
            (tmp_path / "train" / name).write_bytes(b"broken")
    assert len(load_source({**spec, "max_train": 1})[0]) == 1


def test_image_folder_errors(folders):
    spec, _, tmp_path = folders
    bad = tmp_path / "test" / "Cat" / "4.png"
    whole = bad.read_bytes()
    for damaged in (b"", b"text", whole[:60], whole[:-30]):
        bad.write_bytes(damaged)
        fails(spec, bad, "cannot be decoded")
    Image.fromarray(pictures(1, channels=1)[0].astype(np.uint16)).save(bad)
    fails(spec, bad, "8 bits")
    bad.write_bytes(whole)
    load_source(spec)
    (tmp_path / "test" / "dog").rename(tmp_path / "test" / "dogs")
    fails(spec, "only in train: dog", "only in test: dogs")
    for file in (tmp_path / "test" / "dogs").iterdir():
        file.unlink()
    fails(spec, tmp_path / "test", "dogs")
    fails({**spec, "train": str(tmp_path / "trian")}, tmp_path / "trian", "does not exist")
    (tmp_path / "empty").mkdir()
    fails({**spec, "train": str(tmp_path / "empty")}, tmp_path / "empty", "class folder")
