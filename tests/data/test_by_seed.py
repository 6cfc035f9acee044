"""The data of a seed: the same always, other images and other wrong labels than those of another seed."""

import itertools

import pytest
import torch
from valleys.data.by_seed import parts_of, splits_of, write_seed
from valleys.data.cache import clean_labels, load_split, read_metadata, save_split
from valleys.data.options import before_seeds, differs_by_seed, validate_dataset
from valleys.data.sources.load import load_source, write_source
from valleys.data.split import Split, channel_statistics
from valleys.errors import ValleysError

TRAIN, TEST, CLASSES = 60, 35, 4
FIXED, BY_SEED = {}, {"split": "by_seed"}
NOISE = {"label_noise": 0.25}


def entry(**options):
    return validate_dataset("digits", options)


@pytest.fixture(scope="module")
def common():
    """Train and test images that all differ: the first pixel of each is its number."""
    images = torch.randint(0, 256, (TRAIN + TEST, 2, 4, 3), dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(TRAIN + TEST)
    labels = torch.arange(TRAIN + TEST) % CLASSES
    about = (CLASSES, *channel_statistics(images[:TRAIN]))
    return Split(images[:TRAIN], labels[:TRAIN], *about), Split(images[TRAIN:], labels[TRAIN:], *about)


def numbers(split):
    return split.images[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("seed", [0, 1, 7, 2**40])
def test_each_seed_cuts_all_images_into_two_parts_of_the_same_sizes(common, seed):
    train, test = splits_of(common, entry(**BY_SEED), seed)
    assert (len(train), len(test)) == (TRAIN, TEST)
    assert sorted(numbers(train) + numbers(test)) == list(range(TRAIN + TEST))
    for split in (train, test):  # each image with its own label
        assert split.labels.tolist() == [number % CLASSES for number in numbers(split)]
        assert torch.equal(split.images, torch.cat([s.images for s in common])[numbers(split)])
        assert (split.mean, split.std) == channel_statistics(train.images)
    again, _ = splits_of(common, entry(**BY_SEED), seed)
    assert numbers(again) == numbers(train)


def test_other_seeds_have_other_images_and_share_the_rest_by_chance(common):
    seeds = [set(numbers(splits_of(common, entry(**BY_SEED), seed)[0])) for seed in range(40)]
    assert len(set(map(frozenset, seeds))) == 40
    shared = sum(len(a & b) for a, b in itertools.pairwise(seeds)) / 39
    assert shared == pytest.approx(TRAIN**2 / (TRAIN + TEST), abs=2)
    # Every image is in the train part of as large a share of the seeds.
    assert all(5 < sum(number in seed for seed in seeds) < 38 for number in range(TRAIN + TEST))


def test_limits_apply_after_the_cut(common):
    whole = splits_of(common, entry(**BY_SEED), 3)
    small = splits_of(common, entry(**BY_SEED, max_train=20, max_test=10), 3)
    assert [len(split) for split in small] == [20, 10]
    for less, more in zip(small, whole, strict=True):
        assert set(numbers(less)) < set(numbers(more))
    assert small[1].mean == channel_statistics(small[0].images)[0]


@pytest.mark.parametrize("base", [FIXED, BY_SEED])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.25, 0.99])
@pytest.mark.parametrize("seed", [0, 5])
def test_just_so_many_labels_are_wrong_and_all_of_another_class(common, base, share, seed):
    train, test = parts_of(common, entry(**base, label_noise=share), seed)
    assert train.wrong == round(share * TRAIN)
    assert set(train.labels.tolist()) <= set(range(CLASSES))
    assert test.clean_labels is None
    clean = splits_of(common, entry(**base), seed) if base else common
    assert torch.equal(train.clean_labels, clean[0].labels)
    assert torch.equal(test.labels, clean[1].labels)  # test labels stay right


def test_wrong_labels_are_other_ones_for_each_seed_and_spread_over_classes(common):
    spec, counts, patterns = entry(**NOISE), torch.zeros(CLASSES, CLASSES), set()
    for seed in range(200):
        train, _ = parts_of(common, spec, seed)
        changed = train.labels != train.clean_labels
        patterns.add(tuple(changed.tolist()))
        for old, new in zip(train.clean_labels[changed], train.labels[changed], strict=True):
            counts[old, new] += 1
    assert len(patterns) == 200
    assert (counts.diagonal() == 0).all()
    off = counts[~torch.eye(CLASSES, dtype=torch.bool)]
    mean = 200 * 15 / 12
    assert ((off - mean).abs() < 5 * mean**0.5).all()


def test_neither_of_the_two_changes_with_the_other(common):
    both = parts_of(common, entry(**BY_SEED, **NOISE), 4)[0]
    cut = parts_of(common, entry(**BY_SEED), 4)[0]
    noise = parts_of(common, entry(**NOISE), 4)[0]
    assert torch.equal(both.rows, cut.rows)
    assert torch.equal(both.labels != both.clean_labels, noise.labels != noise.clean_labels)


def test_noise_alone_keeps_the_images_and_their_statistics(common):
    train, test = splits_of(common, entry(**NOISE), 2)
    assert numbers(train) == numbers(common[0])
    assert (train.mean, train.std, test.mean) == (common[0].mean, common[0].std, common[0].mean)


def test_given_statistics_stay(common):
    given = (common[0].mean, (0.5, 0.5))
    base = tuple(Split(s.images, s.labels, s.classes, *given) for s in common)
    spec = entry(**BY_SEED, std=[0.5]) | {"std": [0.5, 0.5]}
    train, _ = splits_of(base, spec, 1)
    assert train.std == (0.5, 0.5)
    assert train.mean == channel_statistics(train.images)[0] != base[0].mean


def test_too_small_a_share_is_refused(common):
    with pytest.raises(ValleysError, match=r"^label_noise: 0.001 of 60 train labels makes none wrong"):
        parts_of(common, entry(label_noise=0.001), 0)


@pytest.mark.parametrize("options", [BY_SEED, NOISE, BY_SEED | NOISE | {"max_train": 30}])
@pytest.mark.parametrize("on_disk", [False, True])
def test_files_of_a_seed_hold_its_splits_and_say_how_they_were_made(tmp_path, common, options, on_disk):
    spec, paths = entry(**options), (tmp_path / "seed-6" / "train", tmp_path / "seed-6" / "test")
    base = common
    if on_disk:
        for name, split in zip(("a", "b"), common, strict=True):
            save_split(tmp_path / name, split)
        base = tuple(load_split(tmp_path / name, resident_mb=0) for name in ("a", "b"))
        assert not isinstance(base[0].images, torch.Tensor)
    write_seed(base, spec, 6, paths)
    for path, expected in zip(paths, splits_of(common, spec, 6), strict=True):
        for resident_mb in (100, 0):
            found = load_split(path, resident_mb=resident_mb)
            assert torch.equal(found.images[:], expected.images)
            assert torch.equal(found.labels, expected.labels)
            assert (found.mean, found.std, found.classes) == (expected.mean, expected.std, CLASSES)
    about = read_metadata(paths[0])
    assert (about["seed"], about["split"]) == ("6", spec["split"])
    wrong = int((clean_labels(paths[0]) != load_split(paths[0]).labels).sum())
    assert int(about["wrong_labels"]) == wrong == round(spec["label_noise"] * len(load_split(paths[0])))
    assert "wrong_labels" not in read_metadata(paths[1])
    assert torch.equal(clean_labels(paths[1]), load_split(paths[1]).labels)
    before = [path.read_bytes() for path in paths]
    write_seed(base, spec, 6, paths)
    assert [path.read_bytes() for path in paths] == before


def test_the_library_and_the_workflow_have_the_same_data_of_a_seed(tmp_path):
    options = {"source": "digits", "train_size": 100, "max_train": 80, "split": "by_seed", "label_noise": 0.1}
    spec, paths = validate_dataset("d", options), [tmp_path / name for name in ("train", "test")]
    write_source(before_seeds(spec), "d", paths)
    common = tuple(map(load_split, paths))
    assert [len(split) for split in common] == [100, 1697]
    for found, expected in zip(load_source(options, seed=3), splits_of(common, spec, 3), strict=True):
        assert found.checksum() == expected.checksum()
    assert load_source(options, seed=4)[0].checksum() != load_source(options, seed=3)[0].checksum()


def test_data_of_a_seed_need_one():
    for options, word in ((BY_SEED, "split: by_seed"), (NOISE, "label_noise: 0.25")):
        with pytest.raises(ValleysError, match=rf"^datasets.digits.{word} .*give a seed"):
            load_source({"source": "digits", **options})
        with pytest.raises(ValleysError, match=r"the seed is -1; it must be 0 to"):
            load_source({"source": "digits", **options}, seed=-1)


def test_entries_without_either_are_the_same_for_all_seeds():
    assert not differs_by_seed(entry())
    assert differs_by_seed(entry(**BY_SEED))
    assert differs_by_seed(entry(**NOISE))
    assert before_seeds(entry(max_train=5))["max_train"] == 5
    assert before_seeds(entry(max_train=5, **BY_SEED))["max_train"] is None
    plain = load_source({"source": "digits"})[0].checksum()
    assert (
        load_source({"source": "digits", "split": "fixed", "label_noise": 0}, seed=9)[0].checksum() == plain
    )
