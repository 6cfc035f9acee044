"""Seeds that are added: at which counts there are looks, their levels, the cells at each, and mistakes."""

import copy
import json

import pytest
from config_changes import STUDY, experiment
from valleys.config import outputs
from valleys.config.looks import doubled, least_first
from valleys.config.params import Params
from valleys.errors import ValleysError
from valleys.results.inference import least_n_sign_flip

ADDED = {"until": "decided", "most": 24}


def of(**more):
    return "seeds", {**ADDED, **more}


@pytest.mark.parametrize(
    ("first", "most", "counts"),
    [(8, 24, (8, 16, 24)), (6, 24, (6, 12, 24)), (8, 64, (8, 16, 32, 64)), (8, 9, (8, 9)), (8, 8, (8,))],
)
def test_looks_double_and_the_last_is_at_most(first, most, counts):
    assert doubled(first, most) == counts


def test_the_least_first_look_is_that_of_the_test():
    for looks in range(1, 9):
        for alpha in (0.5, 0.05, 0.0125, 0.001):
            assert least_first(looks, alpha) == least_n_sign_flip(alpha / looks)


def test_an_experiment_at_a_look_is_one_with_a_list_of_seeds_and_the_level_of_a_look():
    found = experiment(of(start=3))
    for count in found.looks.counts:
        at = found.at(count)
        plain = experiment(
            ("seeds", list(range(3, 3 + count))),
            ("claims", {"alpha": 0.05 / 3, "level": 1 - (1 - 0.95) / 3}),
        )
        assert at.config == plain.config
        assert (at.cells, at.wanted) == (plain.cells, plain.wanted)
        assert Params(at).results() == Params(plain).results()
        assert set(outputs.tables(at)) - set(outputs.tables(plain)) == {"looks"}
    assert found.cells == found.at(24).cells


def test_a_list_of_seeds_has_no_looks():
    assert experiment().looks is None
    assert "looks" not in outputs.tables(experiment())


def test_nothing_of_a_cell_changes_when_the_most_is_raised():
    lines = ("lines.next", {"start": "sgd", "stop": "sgd", "stop_seed": "next"})
    probes = ("probes.other", {"kind": "to_seed", "n": 7})
    few, many = (experiment(of(most=most), lines, probes) for most in (8, 24))
    for cell in few.cells[:-1]:  # the greatest has a line to a next one then
        for bundle in few.bundles_of(cell):
            assert Params(few).probe(cell, bundle) == Params(many).probe(cell, bundle)
        for line in few.lines_of(cell):
            assert Params(few).interpolate(cell, line) == Params(many).interpolate(cell, line)
        assert few.solutions_of(cell) == many.solutions_of(cell)
        assert few.target_seeds(cell, "other") == many.target_seeds(cell, "other")


def test_each_look_reads_the_cells_of_its_seeds_alone():
    found = experiment(of(), ("lines.next", {"start": "sgd", "stop": "sgd", "stop_seed": "next"}))
    first = found.at(8)
    assert "next" in found.lines_of(first.cells[-1])
    assert outputs.parts(first, first.cells[-1], "interpolation") == ["lines/swa-descent.parquet"]


def test_cells_of_the_seeds_that_are_added_are_told_from_others():
    own = STUDY | {"factors": {"model.norm": ["batch", "none"]}}
    drawn = own | {"design": "sample", "runs": 4}
    found = experiment(of(), ("studies", {"own": own | {"seeds": [0, 99]}, "drawn": drawn})).at(8)
    added = found.added_cells()
    # Seeds 0 of the base model are the study's own, and a run of the sample, too.
    assert {cell.model for cell in added} == {"mlp"}
    assert {cell.seed for cell in added} >= {4, 5, 6, 7}
    assert not {cell.seed for cell in added} & {0, 99}
    spec = Params(found).look()
    assert spec["added"] == [["digits", "mlp", "quick", cell.seed] for cell in added]
    assert spec["look"] == {"seeds": 8, "looks": [8, 16, 24]}
    assert set(spec["studies"]) == {"own", "drawn"}
    assert spec == json.loads(json.dumps(spec))


SAYS = {
    "too few at first": (of(first=4), ["seeds.first: 4", "4, 8, 16, 24", "0.0125", "make it 7 or more"]),
    "first by the level": (
        [of(first=7, most=14), ("claims", {"alpha": 0.01})],
        ["seeds.first: 7", "0.005", "make it 9 or more"],
    ),
    "most below first": (of(most=6), ["seeds.most: 6", "8 (seeds.first)", "make it 8 or more"]),
    "too few in all": (of(first=3, most=5), ["seeds.most: 5", "make it 6 or more"]),
    "too great a start": (of(start=2**53 - 9), ["seeds.start", "make it 9007199254740968 or less"]),
    "an unknown key": (of(last=3), ["seeds", "unknown key 'last'", "first, most, start, until"]),
    "another end": (("seeds", {"until": "done", "most": 9}), ["seeds.until", "'done'", "decided"]),
    "no most": (("seeds", {"until": "decided"}), ["seeds: missing most"]),
    "text for a number": (of(most="24"), ["seeds.most", "'24'", "write 24"]),
    "nobody takes them": ([of(), ("grid.0.seeds", [1])], ["seeds:", "own", "write a list"]),
    "targets beyond the first look": (
        [of(), ("probes.other", {"kind": "to_seed", "n": 8})],
        ["probes.other.n: 8", "seeds.first", "make it 7 or less"],
    ),
    "a mapping in the grid": (("grid.0.seeds", ADDED), ["grid.0.seeds", "array"]),
    "a name that is taken": ([of(), ("studies", {"most_seeds": STUDY})], ["studies", "'most_seeds'"]),
}


@pytest.mark.parametrize("case", SAYS)
def test_a_mistake_is_told_in_one_line(case):
    changes, words = SAYS[case]
    with pytest.raises(ValleysError) as error:
        experiment(*(changes if isinstance(changes, list) else [changes]))
    assert str(error.value).startswith("config: ")
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value), str(error.value)


def refusal(first, most):
    """What is said of these; empty where nothing is."""
    try:
        experiment(of(first=first, most=most))
    except ValleysError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("most", [6, 7, 12, 24, 48])
@pytest.mark.parametrize("first", [1, 3, 5, 6, 7, 8, 11])
def test_what_a_message_calls_right_is_right(first, most):
    said = refusal(first, most)
    if said:
        key, right = said.split(":")[1].strip(), int(said.split("make it ")[1].split(" ")[0])
        seeds = {"first": first, "most": most} | {key.removeprefix("seeds."): right}
        assert not refusal(**seeds).startswith(f"config: {key}:")  # of the other key there may be more to say


def test_the_config_that_was_given_is_left_as_it_was():
    found = experiment(of())
    given = copy.deepcopy(found.given)
    found.at(8)
    assert found.given == given
    assert (given["seeds"]["most"], given["claims"]["alpha"]) == (24, 0.05)
