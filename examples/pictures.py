"""Data of one's own: stripes, level or upright, in noise."""

import numpy as np


def stripes(train: int, test: int, seed: int = 0) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Return (images, labels) of a train and a test set: uint8 (N, 12, 12) and integers (N)."""
    random = np.random.default_rng(seed)
    sets = []
    for count in (train, test):
        labels = random.integers(0, 2, count)
        wave = 60 * np.sin(np.arange(12) + random.uniform(0, 6, (count, 1)))
        level = np.repeat(wave[:, :, None], 12, axis=2)
        images = np.where(labels[:, None, None] == 0, level, level.transpose(0, 2, 1))
        noisy = 128 + images + random.normal(0, 40, images.shape)
        sets.append((noisy.clip(0, 255).astype(np.uint8), labels))
    return tuple(sets)


if __name__ == "__main__":  # the same as npz files, for config.yaml's second data set
    for name, (images, labels) in zip(("train", "test"), stripes(200, 100), strict=True):
        np.savez(f"{name}.npz", images=images, labels=labels)
