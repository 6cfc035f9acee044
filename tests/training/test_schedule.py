"""The learning rate at each epoch, and which iterates are kept."""

import itertools

import pytest
from valleys.training.schedule import cooldown_epochs, cooldown_rate, kept_epochs, learning_rate


def test_schedule_of_izmailov_et_al():
    recipe = {"lr": 0.1, "swa": {"start": 100, "lr": 0.05}}
    rates = [learning_rate(e, recipe) for e in range(150)]
    assert rates[:51] == [0.1] * 51
    assert rates[90:] == [0.05] * 60
    assert rates[70] == pytest.approx(0.075)
    assert all(a >= b for a, b in itertools.pairwise(rates))
    # A constant rate above lr in the averaging phase is allowed too.
    assert learning_rate(99, {"lr": 0.01, "swa": {"start": 100, "lr": 0.05}}) == 0.05


@pytest.mark.parametrize(
    ("start", "every", "epochs", "kept"),
    [(3, 1, 6, [4, 5, 6]), (0, 2, 6, [2, 4, 6]), (3, 2, 6, [5]), (5, 1, 6, [6])],
)
def test_kept_epochs(start, every, epochs, kept):
    assert kept_epochs({"epochs": epochs, "swa": {"start": start, "every": every}}) == kept


def cooled(epochs=None, lr=None):
    return {
        "epochs": 10,
        "lr": 0.1,
        "swa": {"start": 6, "lr": 0.04},
        "cooldown": {"epochs": epochs, "lr": lr},
    }


@pytest.mark.parametrize(
    ("recipe", "rates"),
    [
        (cooled(), [0.035, 0.025, 0.015, 0.005]),  # as many epochs as averaging has, from its rate
        (cooled(epochs=2), [0.03, 0.01]),
        (cooled(epochs=5, lr=0.2), [0.18, 0.14, 0.1, 0.06, 0.02]),
        (cooled(epochs=1), [0.02]),
    ],
)
def test_the_cooldown_falls_linearly_to_nothing(recipe, rates):
    n = cooldown_epochs(recipe)
    assert [cooldown_rate(epoch, recipe) for epoch in range(n)] == pytest.approx(rates)
    # The same distance is covered as by a rate that falls at every step, down to nothing.
    assert sum(rates) == pytest.approx(n * rates[0] / (2 - 1 / n))
