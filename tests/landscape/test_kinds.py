"""Kinds of directions: each is named once and made by one function."""

import pytest
from valleys.landscape.computed import computed, computed_kinds
from valleys.landscape.directions import drawn, drawn_kinds
from valleys.landscape.kinds import COMPUTED, DRAWN


def test_each_kind_that_a_config_may_name_has_its_function_and_each_function_its_name():
    assert sorted(set(DRAWN) ^ set(drawn_kinds())) == []
    assert sorted(set(COMPUTED) ^ set(computed_kinds())) == []
    assert sorted(DRAWN.keys() & COMPUTED.keys()) == []


def test_two_functions_of_one_kind_are_refused():
    with pytest.raises(ValueError, match="two functions are of the drawn kind 'uniform'"):
        drawn("uniform")(lambda w, _: w)
    with pytest.raises(ValueError, match="two functions are of the computed kind 'pca'"):
        computed("pca")(lambda *_: None)
