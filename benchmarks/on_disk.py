"""What images cost that stay in their file, and what decoding yields: images a second.

``python benchmarks/on_disk.py``: training batches of 224x224 images, shuffled and augmented, from memory and
from a file that the page cache holds (so without its disk); and pictures of 500x375 pixels (JPEG, as
ImageNet's are) decoded by threads and written. All in one process, in turns.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
from functools import partial
from pathlib import Path
from statistics import median

import common
import numpy as np
import torch
from PIL import Image
from valleys.data.augment import draw_permutation, epoch_batches
from valleys.data.cache import load_split
from valleys.data.sources import load
from valleys.data.split import Split

SIDE, BATCH, CLASSES = 224, 128, 4
AUGMENT = {"shift": 16, "flip": True}


def epoch(split: Split) -> None:
    """Go through a split as training does."""
    generator = torch.Generator().manual_seed(0)
    order = draw_permutation(split, generator)
    for _ in epoch_batches(split, order, BATCH, generator, AUGMENT):
        pass


def pictures(folder: Path, count: int) -> dict[str, object]:
    """Make an ImageFolder of smooth colours in noise and return its entry of a config."""
    chance = np.random.default_rng(0)
    for part, n in (("train", count), ("test", CLASSES)):
        for i in range(n):
            place = folder / part / f"class-{i % CLASSES}"
            place.mkdir(parents=True, exist_ok=True)
            coarse = chance.integers(0, 256, (48, 64, 3), dtype=np.uint8)
            smooth = np.asarray(Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC), int)
            noisy = (smooth + chance.integers(-12, 13, smooth.shape)).clip(0, 255).astype(np.uint8)
            stream = io.BytesIO()
            Image.fromarray(noisy).save(stream, "JPEG", quality=90)
            (place / f"{i:05}.jpg").write_bytes(stream.getvalue())
    return {"source": "image_folder", "train": f"{folder}/train", "test": f"{folder}/test", "size": SIDE}


def main() -> None:
    """Measure, write rows and table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        spec, paths = pictures(folder, given.images), [folder / "a.safetensors", folder / "b.safetensors"]
        decode = {
            f"decoded and written, {n} thread{'s' * (n > 1)}": partial(
                load.write_source, spec, "pictures", paths, workers=n
            )
            for n in sorted({1, 2, len(os.sched_getaffinity(0))})
        }
        seconds = common.rounds(decode, given.rounds)
        splits = {
            "batches from memory": load_split(paths[0]),
            "batches from the file": load_split(paths[0], resident_mb=0),
        }
        seconds |= common.rounds({name: partial(epoch, s) for name, s in splits.items()}, given.rounds)
    rows = [
        {"what": name, "images_per_s": given.images / s, "images": given.images, "turn": turn}
        for name, found in seconds.items()
        for turn, s in enumerate(found)
    ]
    common.save("on_disk", rows)
    table = [
        {
            "": name,
            "images/s": f"{given.images / median(found):,.0f}",
            "slowest and fastest": f"{given.images / max(found):,.0f} to {given.images / min(found):,.0f}",
        }
        for name, found in seconds.items()
    ]
    text = common.markdown(table)
    common.document("on_disk", text)
    print(text)


if __name__ == "__main__":
    main()
