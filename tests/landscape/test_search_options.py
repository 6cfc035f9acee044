"""Options of a search that are out of range: one line each, before anything is measured."""

import math

import pytest
import torch
from analytic_networks import on_function
from valleys.errors import ValleysError
from valleys.landscape.searching import find_asymmetric


@pytest.fixture(scope="module")
def evaluator():
    made = on_function(lambda t: t.square().sum(), [0.0, 0.0])

    def measured():
        raise AssertionError("a loss was measured")

    made.train_loss = measured
    return made


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"restarts": 0}, "restarts: 0 is not a whole number of 1 or more"),
        ({"restarts": True}, "restarts: True is not a whole number"),
        ({"steps": 2.5}, "steps: 2.5 is not a whole number of 1 or more"),
        ({"steps": None}, "steps: None is not a whole number"),
        ({"points": 40}, "points: 40 is not an odd number of 5 or more"),
        ({"points": 3}, "points: 3 is not an odd number of 5 or more"),
        ({"points": "9"}, "points: '9' is not a whole number"),
        ({"rise": 0}, "rise: 0 is not a finite number above 0"),
        ({"rise": math.inf}, "rise: inf is not a finite number above 0"),
        ({"rise": math.nan}, "rise: nan is not a finite number above 0"),
        ({"rise": "1"}, "rise: '1' is not a finite number above 0"),
        ({"rise": True}, "rise: True is not a finite number above 0"),
        ({"floor": -0.1}, "floor: -0.1 is not a finite number above 0"),
        ({"floor": 0}, "floor: 0 is not a finite number above 0"),
        ({"floor": 1.0}, "floor: 1 is not below rise, 1"),
        ({"rise": 0.05}, "floor: 0.1 is not below rise, 0.05"),
        ({"seek": "asymetric"}, "seek: 'asymetric' is none; choose asymmetric, symmetric, flat.*asymmetric"),
        ({"seek": 1}, "seek: 1 is none"),
        ({"start": "gausian"}, "start: 'gausian' is none; choose uniform, .*gaussian"),
        ({"start": "hessian"}, "start: 'hessian' is none"),
        ({"start": []}, "start: give a kind's name, or a list of directions"),
        ({"start": None}, "start: give a kind's name, or a list of directions"),
        ({"constants": {"zeta": 0.5}}, "constants: 'zeta' is none; choose c, zeta_max"),
        ({"constants": {"c": 1.0}}, "c: 1.0 is not a level above 1"),
        ({"constants": {"zeta_max": 0.1}, "points": 5}, "offsets: the first above 0 is 0.5, beyond zeta_max"),
        ({"constants": {"noise": -1}}, "noise: -1 is not a finite, non-negative loss"),
    ],
)
def test_an_option_out_of_range_is_one_line(evaluator, options, message):
    with pytest.raises(ValleysError, match=message) as found:
        find_asymmetric(evaluator, **options)
    assert "\n" not in str(found.value)


def test_options_at_the_ends_of_their_ranges_are_taken():
    evaluator = on_function(lambda t: t.square().sum(), [0.0, 0.0])
    search = find_asymmetric(evaluator, restarts=1, steps=1, points=5, rise=1e-3, floor=9.9e-4)
    assert search.verdict == "not found"
    assert torch.isfinite(search.direction["theta"]).all()
