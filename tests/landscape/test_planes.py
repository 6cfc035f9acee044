"""Planes through weight space: their geometry, the losses on them, resumption, and the job end to end."""

import copy
import math
import shutil

import numpy as np
import pytest
import torch
from naive_lines import LOSS, make_split, naive
from valleys.errors import ValleysError
from valleys.landscape import directions, planes
from valleys.landscape.evaluator import Evaluator
from valleys.models import solutions
from valleys.networks import bn_refresh, tensors
from valleys.networks.batch_norm import batch_norms
from valleys.storage import tables
from valleys.storage.state import load_checkpoint
from valleys.storage.weights import checksum
from workflow_runs import changed, load, planned, snakemake

SMOKE = load("config/smoke.yaml")


def vectors(count, seed=0, size=40):
    """Weights of two parameters, and the same as rows of a float64 array."""
    rows = np.random.default_rng(seed).normal(size=(count, size))
    split = [{"a": torch.tensor(r[:30]).reshape(5, 6), "b.c": torch.tensor(r[30:])} for r in rows]
    return split, rows


def flat(weights):
    return np.concatenate([weights[name].reshape(-1).numpy() for name in ("a", "b.c")])


def parts(plane):
    return flat(plane.origin), flat(plane.x_axis), flat(plane.y_axis)


def assert_orthonormal(plane, tolerance=1e-14):
    _, x, y = parts(plane)
    assert np.allclose([[x @ x, x @ y], [y @ x, y @ y]], np.eye(2), atol=tolerance)


# Geometry -------------------------------------------------------------------------------------------


def test_plane_through_three_points_against_numpy():
    (a, b, c), rows = vectors(3)
    plane = planes.through(a, b, c)
    assert_orthonormal(plane)
    origin, x, y = parts(plane)
    assert (origin == rows[0]).all()
    q, r = np.linalg.qr((rows[1:] - rows[0]).T)
    signs = np.sign(np.diag(r))
    assert np.allclose(np.array([x, y]), (q * signs).T, atol=1e-12)
    # The solutions' own coordinates: on the plane, the second at y = 0, the third at y > 0.
    found = np.array([plane.project(w) for w in (a, b, c)])
    assert np.allclose(found[:, :2], np.array([[0, 0], *(np.abs(r) * np.sign(r) * signs[:, None]).T]))
    assert found[1, 1] == pytest.approx(0, abs=1e-13)
    assert found[2, 1] > 0
    assert found[:, 2] == pytest.approx([0, 0, 0], abs=1e-13)
    assert all(plane.contains(distance) for distance in found[:, 2])


def test_a_point_is_projected_to_the_nearest_of_the_plane():
    (a, b, c, far), rows = vectors(4)
    plane = planes.through(a, b, c)
    origin, x, y = parts(plane)
    (u, v), residual, *_ = np.linalg.lstsq(np.array([x, y]).T, rows[3] - origin, rcond=None)
    assert plane.project(far) == pytest.approx((u, v, np.sqrt(residual[0])))
    assert not plane.contains(plane.project(far)[2])
    there = flat(dict(plane.at(u, v)))
    assert np.linalg.norm(there - rows[3]) == pytest.approx(np.sqrt(residual[0]))


def test_distance_is_exact_near_the_plane():
    """A difference of squared lengths would lose a distance a 1e-9th of the length within the plane."""
    (a, b, c, off), _ = vectors(4)
    plane = planes.through(a, b, c)
    _, x, y = parts(plane)
    normal = flat(off) - (flat(off) @ x) * x - (flat(off) @ y) * y
    normal *= 1e-8 / np.linalg.norm(normal)
    pushed = {"a": torch.tensor(normal[:30]).reshape(5, 6), "b.c": torch.tensor(normal[30:])}
    found = plane.project({name: value + pushed[name] for name, value in plane.at(30.0, -20.0)})
    assert found == pytest.approx((30, -20, 1e-8), rel=1e-5)


def test_nearly_parallel_directions_still_give_a_right_angle():
    (origin, u, v), _ = vectors(3)
    near = {name: u[name] + 1e-5 * v[name] for name in u}
    assert_orthonormal(planes.spanned(origin, u, near), 1e-13)


def test_a_direction_in_a_group_is_zero_elsewhere():
    (origin, u, v), rows = vectors(3)
    plane = planes.spanned(origin, {"b.c": u["b.c"]}, v)
    assert_orthonormal(plane)
    assert not plane.x_axis["a"].any()
    assert np.allclose(flat(plane.x_axis)[30:], rows[1, 30:] / np.linalg.norm(rows[1, 30:]))


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [(0, 2, "first and the second"), (1, 0, "first and the third"), (1, 1, "parallel"), (1, 3, "parallel")],
)
def test_what_lays_no_plane_is_told(first, second, words):
    found, _ = vectors(3)
    found.append({n: found[0][n] + 2.5 * (found[1][n] - found[0][n]) for n in found[0]})  # on a line
    with pytest.raises(ValleysError, match=words):
        planes.through(found[0], found[first], found[second])


def test_principal_plane_against_numpy():
    iterates, rows = vectors(12, seed=3)
    plane = planes.principal(lambda: iter(iterates), ["a", "b.c"])
    assert_orthonormal(plane)
    origin, x, y = parts(plane)
    assert np.allclose(origin, rows.mean(0))
    _, values, axes = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    for axis, expected in ((x, axes[0]), (y, axes[1])):
        assert abs(axis @ expected) == pytest.approx(1, abs=1e-6)  # components are kept in float32
    points = planes.describe(plane, {"swa": iterates[0]}, enumerate(iterates, start=4))
    assert [row["role"] for row in points] == ["swa"] + ["iterate"] * 12
    assert [row["epoch"] for row in points] == [None, *range(4, 16)]
    shares = values**2 / (values**2).sum()
    assert points[0]["explained_x"] == pytest.approx(shares[0], rel=1e-6)
    assert points[5]["explained_y"] == pytest.approx(shares[1], rel=1e-6)
    centred = rows - rows.mean(0)
    assert [r["distance"] for r in points[1:]] == pytest.approx(
        list(np.linalg.norm(centred - np.outer(centred @ x, x) - np.outer(centred @ y, y), axis=1))
    )


def test_a_principal_plane_needs_three_iterates():
    iterates, _ = vectors(2)
    with pytest.raises(ValleysError, match="at least 3 iterates, there are 2"):
        planes.principal(lambda: iter(iterates), ["a", "b.c"])


def test_without_iterates_no_variance_is_explained():
    (a, b, c), _ = vectors(3)
    rows = planes.describe(planes.through(a, b, c), {"sgd": a, "swa": b})
    assert [(r["role"], r["epoch"], r["explained_x"], r["explained_y"]) for r in rows] == [
        ("sgd", None, None, None),
        ("swa", None, None, None),
    ]


def test_sides_of_the_grid():
    points = [{"x": 0.0, "y": 0.0}, {"x": 4.0, "y": 0.0}, {"x": 1.0, "y": 1.0}]
    xs, ys = planes.sides({"points": 9, "margin": 0.5}, points, 100.0)
    assert xs == pytest.approx(np.linspace(-2, 6, 9))
    assert ys == pytest.approx(np.linspace(-2, 3, 9))  # the same room as along the longer side
    xs, ys = planes.sides({"points": 21, "relative": 0.3}, points, 7.0)
    assert xs == ys == pytest.approx(np.linspace(-2.1, 2.1, 21))
    assert xs[10] == 0.0
    assert xs == [-x for x in reversed(xs)]


# Losses ---------------------------------------------------------------------------------------------


def three_models(norm="batch"):
    """Three nets at the same depth of training: none. Their statistics are those of the images."""
    nets = {}
    for name, seed in (("sgd", 3), ("swa", 9), ("descent", 5)):
        nets[name] = solutions.fresh({"arch": "resnet8", "norm": norm}, (1, 8, 8), 4, seed=seed).eval()
        if norm == "batch":
            bn_refresh.refresh_bn(nets[name], make_split(60).batches(60))
    return nets


def weights_of(nets):
    return {name: {m: p.detach() for m, p in net.named_parameters()} for name, net in nets.items()}


def test_the_plane_of_a_block_is_one_of_three():
    nets = three_models()
    weights = weights_of(nets)
    names = ["sgd", "swa", "descent"]
    found = planes.build({"at": "sgd", "through": names}, nets, "cell")
    assert found.checksum() == planes.through(*weights.values()).checksum()
    iterates = list(enumerate(weights.values(), start=4))
    grid = planes.grid({"at": "swa", "pca": True, "points": 3, "margin": 0.1}, nets, "cell", lambda: iterates)
    assert grid.plane.checksum() == planes.principal(weights.values, list(weights["swa"])).checksum()
    assert [row["epoch"] for row in grid.points] == [None, None, None, 4, 5, 6]
    assert len(grid.xs) == len(grid.ys) == 3
    group = directions.parameter_group(nets["swa"], "classifier")
    drawn = {"kind": "gaussian", "group": "classifier", "k": 2, "share": 0.0}
    span = {"at": "swa", "span": [drawn, {"kind": "gradient", "group": "classifier", "k": 0, "share": 0.0}]}
    stored = [{name: torch.ones_like(tensor) for name, tensor in weights["swa"].items()}]
    found = planes.build(span, nets, "cell", stored={"y": stored})
    own = directions.restrict(weights["swa"], group)
    first, _ = directions.random_direction("gaussian", own, key="cell/classifier", k=2)
    second = directions.restrict(stored[0], group)
    assert found.checksum() == planes.spanned(weights["swa"], first, second).checksum()


def plane_and_evaluator(norm="batch", **options):
    nets = three_models(norm)
    plane = planes.through(*weights_of(nets).values())
    return nets, plane, Evaluator(nets["sgd"], make_split(60), make_split(30, 1), LOSS, **options)


@pytest.mark.parametrize("bn", ["refreshed", "frozen"])
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_losses_on_the_grid_against_a_naive_reference(norm, bn, tmp_path):
    nets, plane, evaluator = plane_and_evaluator(norm, bn=bn)
    rows = planes.surface(evaluator, plane, [-1.0, 0.0, 2.0], [0.0, 1.5], state=tmp_path / "rows.pt")
    assert [(r["x"], r["y"]) for r in rows] == [(x, y) for y in (0, 1.5) for x in (-1, 0, 2)]
    for row in rows:
        step = {
            name: (row["x"] * x + row["y"] * plane.y_axis[name]).float() for name, x in plane.x_axis.items()
        }
        for split in ("train", "test"):
            loss, accuracy = naive(nets["sgd"], step, 1.0, bn, test=split == "test")
            assert row[f"{split}_loss"] == pytest.approx(loss, rel=2e-5)
            assert row[f"{split}_accuracy"] == pytest.approx(accuracy)


def test_weights_of_solutions_are_found_at_their_coordinates():
    nets, plane, evaluator = plane_and_evaluator()
    for net in nets.values():
        x, y, _ = plane.project(dict(net.named_parameters()))
        evaluator.set_weights(plane.at(x, y))
        for name, parameter in net.named_parameters():
            torch.testing.assert_close(evaluator.parameters[name], parameter, rtol=2e-7, atol=1e-9)


@pytest.mark.parametrize("ahead", [0, 1000, 2**28])  # one point at a time, two, all
@pytest.mark.parametrize("chunk", [1, 7, 2**15])
def test_weights_are_moved_as_they_are_computed_to_the_bit(chunk, ahead, monkeypatch):
    monkeypatch.setattr(planes, "CHUNK", chunk)
    monkeypatch.setattr(planes, "AHEAD", ahead)
    random = torch.Generator().manual_seed(0)
    shapes = {"matrix": (6, 5), "conv": (4, 3, 2, 2), "vector": (9,), "number": (), "none": (0, 3)}
    own = [{n: torch.randn(s, generator=random) for n, s in shapes.items()} for _ in range(3)]
    for given in own:
        given["complex"] = torch.randn(5, 3, dtype=torch.complex64, generator=random)
        given["conv"] = given["conv"].contiguous(memory_format=torch.channels_last)
        given["across"] = torch.randn(3, 8, generator=random).T
    own[1]["conv"] = own[1]["conv"].contiguous()
    plane = planes.spanned(*own)
    parameters = {name: tensor.clone() for name, tensor in own[0].items()}
    xs = [0.0, 0.3, 12.0]
    move = plane.mover(parameters, xs)
    for y in (0.0, -1.7, 1e-4):
        found = []
        for x in move(y):
            found.append(x)
            for name, value in plane.at(x, y):
                assert torch.equal(parameters[name], value.to(parameters[name])), name
        assert found == xs


def test_losses_of_a_surface_are_those_of_its_points_to_the_bit():
    _, plane, evaluator = plane_and_evaluator()
    rows = planes.surface(evaluator, plane, [-1.0, 0.5], [0.0, 1.5])
    for row in rows:
        evaluator.set_weights(plane.at(row["x"], row["y"]))
        assert row == {"x": row["x"], "y": row["y"], **evaluator.point().asdict()}


@pytest.mark.parametrize("bn", ["refreshed", "frozen"])
@pytest.mark.parametrize("whole", [True, False])
def test_solutions_have_their_own_losses_on_the_plane(bn, whole):
    nets, plane, evaluator = plane_and_evaluator(bn=bn)
    before = evaluator.stored()
    assert planes.check_solutions(evaluator, plane, nets, whole) == ["sgd", "swa", "descent"]
    assert evaluator.stored() == before
    elsewhere = {**nets, "descent": solutions.fresh({"arch": "resnet8"}, (1, 8, 8), 4, seed=77)}
    assert planes.check_solutions(evaluator, plane, elsewhere, whole) == ["sgd", "swa"]


def test_self_check_finds_a_plane_that_misses_a_solution():
    nets, plane, evaluator = plane_and_evaluator()
    broken = copy.deepcopy(nets["descent"])
    for layer in batch_norms(broken):
        layer.running_var.mul_(1.5)  # stored statistics that are not those of the images
    with pytest.raises(
        ValleysError, match=r"self-check failed: descent at \(.*\) has train loss .* on the plane"
    ):
        planes.check_solutions(evaluator, plane, {**nets, "descent": broken}, True)


def test_the_callers_model_never_changes(tmp_path):
    nets, plane, evaluator = plane_and_evaluator()
    before = checksum(nets["sgd"].state_dict())
    planes.surface(evaluator, plane, [0.0, 3.0], [1.0], state=tmp_path / "rows.pt")
    assert checksum(nets["sgd"].state_dict()) == before
    assert checksum(evaluator.model.state_dict()) == before


def test_a_killed_surface_goes_on_from_its_last_saved_row(tmp_path):
    """Kill it within a row: what comes out is bit for bit that of a run that was not killed."""
    xs, ys = [-1.0, 0.0, 1.0], [0.0, 0.5, 1.0]
    _, plane, evaluator = plane_and_evaluator()
    whole = planes.surface(evaluator, plane, xs, ys, state=tmp_path / "whole.pt")

    _, plane, killed = plane_and_evaluator()
    point = killed.point

    def dies():
        if killed.points == 7:
            raise KeyboardInterrupt
        return point()

    killed.point = dies
    state = tmp_path / "killed.pt"
    with pytest.raises(KeyboardInterrupt):
        planes.surface(killed, plane, xs, ys, state=state, save_every_s=0.0)
    assert sorted(load_checkpoint(state)) == [0, 1]
    _, plane, again = plane_and_evaluator()
    assert planes.surface(again, plane, xs, ys, state=state, save_every_s=0.0) == whole
    assert again.points == 3


def test_geometry_is_named_by_its_checksum():
    nets = three_models()
    a, b, c = weights_of(nets).values()
    one = planes.through(a, b, c).checksum()
    assert planes.through(a, b, c).checksum() == one
    assert len({one, planes.through(b, a, c).checksum(), planes.through(a, c, b).checksum()}) == 3


# The job --------------------------------------------------------------------------------------------


CELL = "results/smoke/cells/digits/mlp/quick/seed-0"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The smoke experiment's planes: folder."""
    folder = tmp_path_factory.mktemp("planes")
    status, text = snakemake(folder, SMOKE, "planes", "--cores", "2")
    assert status == 0, text
    return folder


def both(folder, plane, root=CELL):
    return [
        tables.read(folder / root / "planes" / plane / f"{name}.parquet", name).to_pandas()
        for name in ("planes", "plane_points")
    ]


@pytest.mark.slow
def test_planes_of_a_cell(finished):
    loaded = {n: solutions.load(finished / CELL / f"{n}.safetensors")[0] for n in ("sgd", "swa", "descent")}
    weights = weights_of(loaded)
    plane = planes.through(*weights.values())
    _, points = both(finished, "solutions")
    for row in points.itertuples():
        assert (row.x, row.y) == pytest.approx(plane.project(weights[row.role])[:2])
    assert (points["distance"] < 1e-12).all()
    # Two directions of probes, one drawn and one computed, from the weights of sgd outwards.
    grid, points = both(finished, "directions")
    assert grid["x"].max() == pytest.approx(0.25 * tensors.vector_norm(weights["sgd"]))
    assert (grid["bn_policy"] == "frozen").all()
    drawn = directions.random_direction("uniform", weights["sgd"], key="digits/mlp/quick/seed-0/all", k=0)[0]
    step = directions.difference(weights["sgd"], weights["swa"], list(drawn))
    expected = sum(float((step[n].double() * drawn[n]).sum()) for n in drawn)
    assert points.set_index("role").loc["swa", "x"] == pytest.approx(expected, rel=1e-5)
    # The mean of all iterates is swa: it lies at the origin of their plane.
    _, points = both(finished, "iterates")
    swa = points[points["role"] == "swa"].iloc[0]
    assert (swa["x"], swa["y"], swa["distance"]) == pytest.approx((0, 0, 0), abs=1e-6)
    # The last of them is where the cooldown sets out from; swa is as far off as their weights say.
    last = points[points["epoch"] == 6].iloc[0]
    reached = weights_of({"last": solutions.load(finished / CELL / "raw/last.safetensors")[0]})["last"]
    away = tensors.vector_norm(directions.difference(weights["swa"], reached, list(drawn)))
    assert math.hypot(last["x"], last["y"], last["distance"]) == pytest.approx(away, rel=1e-5)


@pytest.mark.slow
def test_a_rerun_gives_the_same_bytes_and_leaves_no_state(finished):
    names = [f"{CELL}/planes/{p}/{t}.parquet" for p in SMOKE["planes"] for t in ("planes", "plane_points")]
    before = {name: (finished / name).read_bytes() for name in names}
    assert not list((finished / CELL / "state").glob("plane-*"))
    shutil.rmtree(finished / CELL / "planes")
    status, text = snakemake(finished, SMOKE, *names, "--cores", "2")
    assert status == 0, text
    assert {name: (finished / name).read_bytes() for name in names} == before


@pytest.mark.slow
def test_a_plane_on_fewer_images_and_at_swa(finished):
    new = {
        "span": ["uniform/0", "uniform/1"],
        "at": "swa",
        "points": 3,
        "train_images": 50,
        "test_images": 20,
    }
    config = changed(SMOKE, planes__new=new)
    assert planned(finished, config, f"{CELL}/planes/new/planes.parquet") == {"plane": 1}
    status, text = snakemake(finished, config, f"{CELL}/planes/new/planes.parquet", "--cores", "1")
    assert status == 0, text
    grid, points = both(finished, "new")
    assert len(grid) == 9
    assert set(20 * grid["test_accuracy"] % 1) == {0}
    assert points.set_index("role")["distance"].idxmin() == "swa"


@pytest.mark.slow
def test_one_direction_under_two_names_is_told_in_one_line(finished):
    config = changed(
        SMOKE,
        probes__same={"kind": "uniform", "n": 1, "points": 21},
        planes__flat={"span": ["uniform/0", "same/0"]},
    )
    status, text = snakemake(finished, config, f"{CELL}/planes/flat/planes.parquet", "--cores", "1")
    assert status != 0
    assert "config: planes.flat.span: it must be two different directions" in text
    assert "Traceback" not in text
