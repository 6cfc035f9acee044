"""What a run's config says to the rules."""

import pytest
from valleys.claims.settings import Settings

PROBES = {
    "drawn": {"rise": 2.0, "bn": "refreshed", "kind": "uniform"},
    "far": {"rise": None, "bn": "frozen", "kind": "uniform"},
    "sought": {"rise": 10.0, "bn": "frozen", "kind": "searched", "seek": "symmetric"},
    "signs": {"rise": 2.0, "bn": "refreshed", "kind": "sign", "orthogonal": True},
}


@pytest.mark.parametrize(
    ("probe", "rise", "headline", "bn", "seek", "orthogonal"),
    [
        ("drawn", 2.0, True, "refreshed", "", False),
        ("far", None, False, "frozen", "", False),
        ("sought", 10.0, False, "frozen", "symmetric", False),
        ("signs", 2.0, True, "refreshed", "", True),
        ("unknown", None, False, "", "", False),
    ],
)
def test_what_is_known_of_a_probe(probe, rise, headline, bn, seek, orthogonal):
    settings = Settings(probes=PROBES)
    assert settings.rise_of(probe) == rise
    assert settings.is_headline(probe) == headline
    assert settings.bn_of(probe) == bn
    assert settings.seek_of(probe) == seek
    assert settings.is_orthogonal(probe) == orthogonal
    assert settings.about_rise(probe) == ("" if rise is None else f"at a rise of {rise:g} nats")


def test_the_headline_rise_is_the_configs():
    assert Settings(probes=PROBES, rise=10.0).is_headline("sought")


@pytest.mark.parametrize(
    ("dataset", "recipe", "may"),
    [
        ("noisy", "swa", True),
        ("clean", "swa", False),
        ("noisy", "given", False),
        ("noisy", "given at last", False),  # a solution under a name of the user's own
        ("noisy", "given-anew", True),
        ("clean", "given", False),
    ],
)
def test_controls_and_own_weights_decide_nothing(dataset, recipe, may):
    assert Settings(controls=["clean"], checkpoints=["given"]).may_decide(dataset, recipe) == may
    assert Settings().may_decide(dataset, recipe)
