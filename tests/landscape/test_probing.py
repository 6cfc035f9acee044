"""All curves of a solution: self-checks, resumption, rows of tables."""

import copy
from types import SimpleNamespace

import pytest
import torch
from naive_lines import (
    BLOCK,
    CONSTANTS,
    FIRST,
    double_evaluator,
    draw,
    make_evaluator,
    make_model,
    make_split,
    subset_evaluator,
)
from valleys.asymmetry import next_point
from valleys.errors import ValleysError
from valleys.landscape import directions
from valleys.landscape.probing import (
    Rows,
    Searched,
    line_between,
    probe_solution,
    search_key,
    stored_directions,
)
from valleys.models import solutions
from valleys.networks import bn_refresh, tensors
from valleys.networks.batch_norm import batch_norms
from valleys.storage.state import load_checkpoint


def test_lines_that_did_not_begin_at_one_start_are_found_out(tmp_path):
    """As they share their point at offset 0, it is measured again after the last."""
    evaluator = make_evaluator()
    moved, evaluator.move = evaluator.move, lambda *given: (moved(*given), wander())

    def wander():
        for tensor in evaluator.start.values():
            if tensor.is_floating_point():
                tensor.mul_(1.01)

    with pytest.raises(ValleysError, match="self-check failed: the start after the last direction"):
        solution(evaluator, tmp_path)


class Backwards(torch.autograd.Function):
    """The identity, with a derivative in reverse mode only."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


@pytest.mark.parametrize("batch_size", [1000, 17])
@pytest.mark.parametrize("bn", ["refreshed", "frozen"])
def test_a_network_without_forward_mode_is_differentiated_backwards(bn, batch_size):
    forwards, backwards = (double_evaluator("batch", bn=bn, batch_size=batch_size) for _ in range(2))
    backwards.model.final.register_forward_hook(lambda module, inputs, out: Backwards.apply(out))
    direction = draw(forwards.model)
    for evaluator in (forwards, backwards):
        evaluator.move(direction, 0.5)
    before = {name: id(p) for name, p in backwards.model.named_parameters()}
    expected = forwards.train_slope(direction)
    for _ in range(2):
        assert backwards.train_slope(direction) == pytest.approx(expected, rel=1e-9)
    assert (forwards.slopes.backwards, backwards.slopes.backwards) == (False, True)
    assert {name: id(p) for name, p in backwards.model.named_parameters()} == before
    assert backwards.train_slope({}) == 0.0


def solution(evaluator, tmp_path, n=3, **changes):
    block = {**BLOCK, "n": n, **changes}
    state = tmp_path / "curves.pt"
    found = probe_solution(evaluator, block, "cell", stored=[], check_stored_bn=True, state=state)
    return list(found)


def test_probe_solution_passes_through_the_stored_loss_and_meets_the_rise(tmp_path):
    evaluator = make_evaluator()
    own = evaluator.stored().train_loss
    results = solution(evaluator, tmp_path)
    assert [row["k"] for _, row in results] == [0, 1, 2]
    for curve, row in results:
        assert len(curve) == 7
        assert curve[3]["offset"] == 0.0
        assert curve[3]["train_loss"] == pytest.approx(own, rel=1e-5)
        if row["radius_status"] == "found":
            rises = [curve[i]["train_loss"] - own for i in (0, -1)]
            assert max(rises) == pytest.approx(0.5, rel=0.15)
        assert row["entries"] == sum(p.numel() for p in make_model().parameters())
        assert row["group_norm"] == pytest.approx(tensors.vector_norm(dict(make_model().named_parameters())))
        assert row["key"] == "cell/all"


def test_which_way_the_averaged_solution_lies_is_told_and_no_part_of_the_state(tmp_path):
    evaluator, swa = make_evaluator(), {}
    for number, (name, w) in enumerate(make_model().named_parameters()):
        swa[name] = w.detach() + 0.1 * (number + 1)
    options = {"stored": [], "check_stored_bn": True, "state": tmp_path / "curves.pt"}
    block = {**BLOCK, "n": 2}
    plain = [row for _, row in probe_solution(evaluator, block, "cell", **options)]
    assert all("towards_swa" not in row for row in plain)
    started = {name: w.detach().clone() for name, w in evaluator.parameters.items()}
    for other in (swa, {name: -w for name, w in swa.items()}):  # the second finds curves of the first
        rows = [row for _, row in probe_solution(evaluator, block, "cell", **options, swa=other)]
        for _, direction, _ in directions.draw(block, started, "cell/all"):
            row = rows.pop(0)
            expected = sum(float((u * (other[n] - started[n])).double().sum()) for n, u in direction.items())
            assert row.pop("towards_swa") == pytest.approx(expected, abs=1e-5)
            assert row == plain[row["k"]]


def test_self_check_finds_a_line_that_misses_its_solution(tmp_path):
    evaluator = make_evaluator()
    for layer in batch_norms(evaluator.model):
        layer.running_var.mul_(1.5)  # stored statistics that are not those of the images
    evaluator.load(evaluator.model.state_dict())
    with pytest.raises(ValleysError, match="self-check failed: direction 0 at offset 0"):
        solution(evaluator, tmp_path)


@pytest.mark.slow
def test_more_directions_later_probe_only_the_new_ones(tmp_path):
    fresh = solution(make_evaluator(), tmp_path / "whole", n=4)
    first = make_evaluator()
    solution(first, tmp_path / "grown", n=3)
    second = make_evaluator()
    grown = solution(second, tmp_path / "grown", n=4)
    assert grown == fresh
    assert second.points < 0.6 * first.points
    third = make_evaluator()
    assert solution(third, tmp_path / "grown", n=2) == fresh[:2]
    assert third.points == 0


@pytest.mark.slow
def test_a_killed_probe_goes_on_from_its_last_saved_direction(tmp_path):
    whole = solution(make_evaluator(), tmp_path / "whole")
    block, state = dict(BLOCK), tmp_path / "killed.pt"
    options = {"cell": "cell", "stored": [], "check_stored_bn": True, "state": state, "save_every_s": 0.0}
    killed = probe_solution(make_evaluator(), block, **options)
    next(killed), next(killed)
    killed.close()
    assert sorted(load_checkpoint(state)) == [0, 1]
    assert list(probe_solution(make_evaluator(), block, **options)) == whole


@pytest.mark.slow
def test_an_adaptive_probe_resumes_and_tells_its_points(tmp_path, monkeypatch):
    answers = iter([None, 1, 2, None, None])
    monkeypatch.setattr(next_point, "next_point", lambda *_, **__: next(answers))
    options = {"cell": "cell", "stored": [], "check_stored_bn": True, "constants": CONSTANTS}
    block = {**BLOCK, "points": 21, "adaptive": True}
    first, state = make_evaluator(), tmp_path / "curves.pt"
    found = list(probe_solution(first, {**block, "n": 2}, state=state, **options))
    assert [(len(curve), row["points"]) for curve, row in found] == [(9, 9), (11, 11)]
    again = list(probe_solution(make_evaluator(), block, state=state, **options))
    assert again[:2] == found
    assert again[2][1]["points"] == 9
    whole = list(
        probe_solution(make_evaluator(), block | {"adaptive": False}, state=tmp_path / "x", **options)
    )
    for (curve, _), (points, _), at in zip(again, whole, (FIRST, [0, 1, 2, *FIRST[1:]], FIRST), strict=True):
        assert curve == [points[i] | {"grid_points": 21} for i in at]
    assert "points" not in whole[0][1]


@pytest.mark.slow
def test_an_adaptive_probe_on_a_subset_has_errors_at_all_of_its_points(tmp_path, monkeypatch):
    options = {"cell": "cell", "stored": [], "check_stored_bn": False, "constants": CONSTANTS}
    block, curves = {**BLOCK, "points": 21, "n": 1}, []
    for adaptive in (True, False):
        monkeypatch.setattr(
            next_point, "next_point", lambda x, at, *_, **__: min(set(range(len(x))) - set(at), default=None)
        )
        given = block | {"adaptive": adaptive}
        ((curve, _),) = probe_solution(subset_evaluator(), given, state=tmp_path / str(adaptive), **options)
        curves.append(curve)
    assert curves[0] == [row | {"grid_points": 21} for row in curves[1]]
    assert all(row["train_error"] > 0 for row in curves[0] if row["offset"])


def test_stored_directions_are_picked_by_solution_and_number():
    stored = {f"{s}/{k}/w.x": torch.tensor([float(k)]) for s in ("sgd", "swa") for k in range(11)}
    found = stored_directions(stored, "swa")
    assert [d["w.x"].item() for d in found] == list(range(11))
    assert stored_directions(stored, "descent") == []


def test_rows_of_tables_have_the_names_and_the_columns_of_some_kinds():
    label = {"dataset": "d", "solution": "swa", "checksum": "abc"}
    probed = [([{"offset": 0.0}, {"offset": 1.0}], {"k": k, "radius": 2.0}) for k in (0, 1)]
    found, block = Rows(), {"kind": "hessian", "group": "all", "n": 2}
    found.add(iter(probed), label, block, "frozen", [{"eigenvalue": 3.5}, {"to_seed": 4}])
    found.add(iter(probed[:1]), label, {**block, "kind": "uniform"}, "none")
    assert [(row["eigenvalue"], row["to_seed"]) for row in found.directions] == [
        (3.5, None),
        (None, 4),
        (None, None),
    ]
    names = {"dataset": "d", "solution": "swa", "kind": "hessian", "group": "all", "bn_policy": "frozen"}
    assert found.curves[1] == {**names, "k": 0, "offset": 1.0}
    assert found.directions[1] == {**names, "k": 1, "radius": 2.0, "checksum": "abc", "eigenvalue": None} | {
        "to_seed": 4
    }
    assert len(found.curves) == 6


@pytest.mark.parametrize("bn", ["refreshed", "frozen"])
def test_line_between_two_solutions(bn):
    stop = solutions.fresh({"arch": "resnet8"}, (1, 8, 8), 4, seed=9)
    bn_refresh.refresh_bn(stop, make_split(60).batches(60))
    evaluator = make_evaluator(bn=bn)
    line = {"start": "swa", "stop": "descent", "first": -1, "last": 2, "divisions": 4}
    points = line_between(evaluator, stop, line, check_stored_bn=True)
    assert [p["t"] for p in points] == [i / 4 for i in range(-4, 9)]
    broken = copy.deepcopy(stop)
    for layer in batch_norms(broken):
        layer.running_var.mul_(1.5)
    if bn == "refreshed":
        with pytest.raises(ValleysError, match=r"self-check failed: descent \(t = 1\)"):
            line_between(make_evaluator(), broken, line, check_stored_bn=True)


@pytest.mark.parametrize("bn", ["refreshed", "frozen"])
def test_a_line_with_until_says_how_many_images_its_barrier_took(bn):
    stop = solutions.fresh({"arch": "resnet8"}, (1, 8, 8), 4, seed=9)
    bn_refresh.refresh_bn(stop, make_split(60).batches(60))
    line = {"start": "swa", "stop": "descent", "first": -1, "last": 2, "divisions": 4}
    line |= {"until": 0.95, "threshold": 0.1}
    points = line_between(make_evaluator(bn=bn), stop, line, check_stored_bn=True)
    assert [p["t"] for p in points] == [i / 4 for i in range(-4, 9)]
    assert {p["images"] for p in points} == {60}  # all there are: too few for a look before
    assert all(p["settled"] is True for p in points)
    whole = line_between(make_evaluator(bn=bn), stop, {**line, "until": None}, check_stored_bn=False)
    for ours, theirs in zip(points, whole, strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-4)


def test_searches_are_stored_by_solution_and_number_with_the_rows_of_each():
    found, directions = Searched(), {}
    for solution in ("sgd", "swa"):
        directions[solution] = [{"a.b": torch.rand(2)}, {"a.b": torch.rand(2)}]
        searches = (
            SimpleNamespace(direction=u, restarts=[{"restart": 0}, {"restart": 1}], curves=[{"offset": k}])
            for k, u in enumerate(directions[solution])
        )
        found.add(searches, {"seed": 3, "solution": solution})
    for solution, expected in directions.items():
        stored = stored_directions(found.directions, solution)
        assert [list(one) for one in stored] == [["a.b"], ["a.b"]]
        assert all(torch.equal(one["a.b"], other["a.b"]) for one, other in zip(stored, expected, strict=True))
    names = [(row["solution"], row["k"], row["restart"], row["seed"]) for row in found.searches]
    assert names == [(s, k, r, 3) for s in ("sgd", "swa") for k in (0, 1) for r in (0, 1)]
    assert found.search_curves[-1] == {"seed": 3, "solution": "swa", "k": 1, "offset": 1}


def test_the_state_of_a_search_is_that_of_all_that_decides_it():
    probe = {"kind": "searched", "n": 1, "rise": 1.0, "solutions": ["sgd"], "search": {"steps": 3}}
    spec = {"version": 1, "probe": probe, "asymmetry": {"c": 2}, "loss": {}, "bn_refresh": {}}
    about = {"checksum": "a", "model": {}}

    def key(**changes):
        return search_key({**spec, "probe": {**probe, **changes}}, about, ["d"], "cpu")

    assert key() == key(n=5, solutions=["swa"])
    for change in ({"rise": 2.0}, {"search": {"steps": 4}}, {"group": "bn"}):
        assert key() != key(**change)
    for other in (
        {"version": 2},
        {"asymmetry": {"c": 3}},
        {"loss": {"name": "mse"}},
        {"bn_refresh": {"x": 1}},
    ):
        assert key() != search_key({**spec, **other}, about, ["d"], "cpu")
    assert key() != search_key(spec, {"checksum": "b", "model": {}}, ["d"], "cpu")
    assert key() != search_key(spec, about, ["e"], "cpu")
    assert key() != search_key(spec, about, ["d"], "cpu, 2 threads")
