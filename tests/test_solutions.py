"""Stored solutions rebuild their own model, or say why not."""

import pytest
import torch
from valleys import files, solutions
from valleys.arch_options import validate_spec
from valleys.errors import ValleysError

SPEC = validate_spec({"arch": "resnet8", "width": 2, "norm": "batch"})
ABOUT = {"model": SPEC, "in_shape": (1, 8, 8), "classes": 3, "solution": "sgd"}


def fresh(seed=0, **spec):
    return solutions.fresh({**SPEC, **spec}, (1, 8, 8), 3, seed=seed)


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def test_a_solution_comes_back_as_it_was(tmp_path):
    model = fresh().train()
    with torch.no_grad():
        model(torch.randn(16, 1, 8, 8))  # running statistics of their own
    solutions.save(tmp_path / "w", model.state_dict(), ABOUT, iterates=40)
    loaded, about = solutions.load(tmp_path / "w")
    assert equal(loaded.state_dict(), model.state_dict())
    assert not loaded.training
    assert loaded.stem.weight.is_contiguous(memory_format=torch.channels_last)
    images = torch.randn(5, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(loaded(images), model.eval()(images))
    assert about.pop("checksum") == files.checksum(model.state_dict())
    assert about == {**ABOUT, "in_shape": [1, 8, 8], "iterates": 40}


def test_what_came_with_one_solution_goes_on_to_the_next(tmp_path):
    solutions.save(tmp_path / "one", fresh(0).state_dict(), ABOUT)
    _, about = solutions.load(tmp_path / "one")
    other = fresh(1).state_dict()
    solutions.save(tmp_path / "two", other, about, solution="swa")
    _, found = solutions.load(tmp_path / "two")
    assert found["solution"] == "swa"
    assert found["checksum"] == files.checksum(other) != about["checksum"]


def test_one_seed_is_one_set_of_initial_weights():
    torch.manual_seed(1)
    one = fresh(5)
    torch.manual_seed(2)
    assert equal(one.state_dict(), fresh(5).state_dict())
    assert not equal(one.state_dict(), fresh(6).state_dict())
    torch.manual_seed(3)
    free = solutions.fresh(SPEC, (1, 8, 8), 3)
    torch.manual_seed(3)
    assert equal(free.state_dict(), solutions.fresh(SPEC, (1, 8, 8), 3).state_dict())


def test_weights_that_say_nothing_of_their_model_are_an_error(tmp_path):
    files.save_weights(tmp_path / "w", fresh().state_dict(), {"model": SPEC})
    with pytest.raises(ValleysError, match="has no in_shape, classes in its header"):
        solutions.load(tmp_path / "w")


@pytest.mark.parametrize("other", [{"width": 4}, {"norm": "none"}])
def test_weights_of_another_model_are_an_error(tmp_path, other):
    solutions.save(tmp_path / "w", fresh(**other).state_dict(), ABOUT)
    with pytest.raises(ValleysError, match="does not fit its model") as caught:
        solutions.load(tmp_path / "w")
    assert str(tmp_path / "w") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_weights_are_an_error(tmp_path):
    path = tmp_path / "w"
    solutions.save(path, fresh().state_dict(), ABOUT)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValleysError, match="truncated or corrupt"):
        solutions.load(path)
