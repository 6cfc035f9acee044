"""Every figure on small tables that conform to the schemas: drawn, legible, reproducible, told rightly."""

import itertools
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from valleys import figures, tables
from valleys.errors import ValleysError
from valleys.stats import mean_interval, wilson

NAMES = ["training", "prevalence", "curves-uniform", "line-swa-descent", "shift", "toy-surface", "toy-curves"]
NAMES += ["plane-solutions", "plane-iterates"]
NAMES += ["theory-average", "theory-gain", "sensitivity", "theory-measured"]
TOY = ("toy_2d", "toy_2d_curves", "toy_2d_surface")
SPEC = {"style": {"dpi": 60}, "swa_start": {"quick": 4}, "c": 2.0, "level": 0.95, "version": 1}
ONE = [("digits", "mlp", "quick")]
MANY = [
    ("digits", "resnet8-bn", "quick"),
    ("fashion-mnist-of-zalando", "preresnet164-wide-without-normalisation", "a_recipe_with_a_long_name"),
]


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def fill(table, **values):
    """A row of a table: the values given, and something of the declared type elsewhere."""
    blank = {"string": "", "int64": 0, "float64": float("nan"), "bool": False}
    columns = tables.declared()[table]["columns"]
    row = {c["name"]: None if c.get("optional") == "extra" else blank[c["type"]] for c in columns}
    assert set(values) <= set(row), set(values) - set(row)
    return row | values


def make_rows(cells=ONE, seeds=(0, 1, 2), probes=("uniform",), solutions=("sgd", "swa"), n=4):
    """Rows of every table but claims; what they hold is known in closed form."""
    rows = {name: [] for name in tables.declared()}
    for (i, (dataset, model, recipe)), seed in itertools.product(enumerate(cells), seeds):
        cell = {"dataset": dataset, "model": model, "recipe": recipe, "seed": seed}
        for epoch in range(1, 9):
            seen = {"test_loss": 2.0 / epoch + seed, "test_accuracy": 0.8} if epoch % 2 == 0 else {}
            rows["training"].append(
                fill("training", **cell, phase="sgd" if epoch <= 4 else "swa", epoch=epoch, lr=0.1,
                     train_loss=1.0 / epoch, train_accuracy=0.9, **seen)
            )  # fmt: skip
        rows["training"].append(fill("training", **cell, phase="descent", epoch=0, train_loss=99.0))
        for j, solution in enumerate(("sgd", "swa", "descent")):
            measures = {"train_loss": 0.1 + j, "test_loss": 0.2 + j + seed / 10}
            measures |= {"train_accuracy": 0.9, "test_accuracy": 0.8}
            about = {"bn_policy": "refreshed", "checksum": "c0ffee" * 10}
            rows["solutions"].append(fill("solutions", **cell, solution=solution, **measures, **about))
        for solution, probe, k in itertools.product(solutions, probes, range(n)):
            line = {"solution": solution, "probe": probe, "kind": "uniform", "group": "all", "k": k}
            radius = 2.0 + k + i
            about = {
                "radius": radius,
                "radius_status": "capped" if k == 0 else "found",
                "bn_policy": "refreshed",
            }
            rows["directions"].append(fill("directions", **cell, **line, **about))
            status = ("asymmetric", "asymmetric", "symmetric", "not_minimum")[k % 4]
            best = {
                "shift": 0.1 * radius,
                "shift_gap": 0.2,
                "shift_free": 0.1 * radius,
                "shift_free_gap": 0.05,
            }
            rows["asymmetry"].append(
                fill("asymmetry", **cell, **line, status=status, c_star=2.5 + k, rise_minus=4.0,
                     rise_plus=0.5 + k, radius=radius, **best)
            )  # fmt: skip
            for policy, delta in itertools.product(("fixed", "free"), np.arange(-10, 11) / 40):
                left = 10 * abs(delta - 0.1) + (0.5 if policy == "fixed" else 0.25)
                zero = 1.5 if policy == "fixed" else 1.25
                rows["shift"].append(
                    fill("shift", **cell, **line, policy=policy, delta_over_r=delta, gap=left * 0.4 / zero,
                         relative_gap=left / zero)
                )  # fmt: skip
            if status != "not_minimum":
                for law, scale, share in itertools.product(
                    ("uniform", "rademacher"), (0.25, 0.5), (0.5, 1.0)
                ):
                    gain = scale * share * (0.5 if status == "asymmetric" else -0.25) + 0.001 * seed
                    rows["theory_measured"].append(
                        fill("theory_measured", **cell, **line, status=status, flat_side=1, shift=law,
                             scale=scale, bias=scale * share, gain=gain, best_bound=gain - 0.1,
                             train_gain=-0.1, test_gain=gain / 2)
                    )  # fmt: skip
            for x in np.linspace(-1, 1, 11):
                loss = 1 + 4 * x * x if x < 0 else 1 + (0.5 + k) * x * x
                rows["curves"].append(
                    fill("curves", **cell, **line, bn_policy="refreshed", offset=x * radius, train_loss=loss,
                         test_loss=loss + 0.2 + 0.1 * x, train_accuracy=0.5, test_accuracy=0.5)
                )  # fmt: skip
        for t in np.round(np.arange(-2, 3.01, 0.25), 6):
            train = 0.1 + 0.04 * (t - 1) ** 2 + 0.1 * seed
            test = 0.3 + 0.04 * (t - 0.25 - 0.25 * seed) ** 2 + 5e3 * max(t - 2.9, 0)
            rows["interpolation"].append(
                fill("interpolation", **cell, line="swa-descent", path="linear", start="swa", stop="descent",
                     stop_recipe=recipe, stop_seed=seed, t=t, offset=t, bn_policy="refreshed",
                     train_loss=train, test_loss=test, train_accuracy=0.9, test_accuracy=0.8)
            )  # fmt: skip
        if seed == min(seeds):
            make_planes(rows, cell, i)
    for (i, names), (j, probe) in itertools.product(enumerate(cells), enumerate(probes)):
        settings = itertools.product((0.25, 0.5, 0.75), (0.1, 0.25), (1.5, 2.0, 4.0))
        for zeta_max, min_span, c in settings:
            hits = 10 * (1 + i % 2 + j % 3) - int(c)
            share = wilson(hits, 60)
            names_of = dict(zip(("dataset", "model", "recipe"), names, strict=True))
            rows["sensitivity"].append(
                fill("sensitivity", **names_of, probe=probe, kind=probe, zeta_max=zeta_max,
                     min_span=min_span, c=c, chosen=(zeta_max, min_span, c) == (0.5, 0.25, 2.0), n=60,
                     asymmetric=hits, share=share.estimate, low=share.low, high=share.high)
            )  # fmt: skip
    for recipe, draw in itertools.product(("paper", "converged"), range(4)):
        status = "not_minimum" if recipe == "paper" and draw == 3 else "asymmetric"
        rows["toy_2d"].append(
            fill("toy_2d", recipe=recipe, draw=draw, weight=1.0, bias=0.5, loss=0.3 + 0.1 * draw,
                 status=status, direction_weight=0.6, direction_bias=0.8, c_star=3.25,
                 rise_minus=5.0 + draw, rise_plus=0.75)
        )  # fmt: skip
        for offset in np.arange(-7.5, 7.6, 2.5):
            rows["toy_2d_curves"].append(
                fill(
                    "toy_2d_curves",
                    recipe=recipe,
                    draw=draw,
                    offset=offset,
                    loss=0.3 + abs(offset) / (draw + 2),
                )
            )
    return rows | make_simulations()


def make_planes(rows, cell, i=0):
    """Add a plane through three solutions and one of iterates: parabolas whose minima are known."""
    for plane, shape in (("solutions", (9, 5)), ("iterates", (7, 7))):
        for y, x in itertools.product(*(np.linspace(-2, 6 + i, n) for n in reversed(shape))):
            train = 0.01 + 0.1 * (x - 2) ** 2 + 0.3 * y**2
            test = 0.05 + 0.1 * (x - 3) ** 2 + 0.3 * (y - 2) ** 2
            rows["planes"].append(
                fill("planes", **cell, plane=plane, bn_policy="refreshed", x=x, y=y, train_loss=train,
                     test_loss=test, train_accuracy=0.9, test_accuracy=0.8)
            )  # fmt: skip
    for role, x, y in (("sgd", 0, 0), ("swa", 4, 0), ("descent", 3, 1)):
        at = {"role": role, "x": x, "y": y, "epoch": None}
        none = {"explained_x": None, "explained_y": None}
        rows["plane_points"].append(
            fill("plane_points", **cell, plane="solutions", **at, **none, distance=1e-9)
        )
        some = {"explained_x": 0.5, "explained_y": 0.25, "distance": 0.0 if role == "swa" else 1.5}
        rows["plane_points"].append(fill("plane_points", **cell, plane="iterates", **at, **some))
    for epoch in range(5, 9):
        at = {"role": "iterate", "epoch": epoch, "x": epoch - 5.0, "y": 3.0 * (-1) ** epoch / epoch}
        about = {"distance": epoch / 4, "explained_x": 0.5, "explained_y": 0.25}
        rows["plane_points"].append(fill("plane_points", **cell, plane="iterates", **at, **about))


def make_simulations():
    rows = {name: [] for name in ("toy_2d_surface", "theory_average", "theory_gain")}
    for weight, bias in itertools.product(np.linspace(-7.5, 7.5, 9), repeat=2):
        rows["toy_2d_surface"].append(
            fill("toy_2d_surface", weight=weight, bias=bias, loss=0.25 + (weight - 1) ** 2 / 9 + bias**2 / 9)
        )
    grid = itertools.product(("linear", "quadratic", "softplus"), (1.0, 2.0, 4.0), (0.5, 4.0))
    for (shape, c, level), lr, kind in itertools.product(grid, (0.03, 0.1), ("uniform", "rademacher")):
        mean = lr * (c - 1) * level
        bound = mean / 2 if c == 2 else -1.0 if shape == "linear" else float("nan")
        rows["theory_average"].append(
            fill("theory_average", shape=shape, c=c, lr=lr, noise=kind, level=level, chains=1000, iterates=20,
                 burn_in=10, mean=mean, mean_se=0.001, flat_share=0.9, average_loss=0.5, average_loss_se=0.01,
                 iterate_loss=2.0, iterate_loss_se=0.01, loss_kept=0.1 * c, loss_kept_se=0.01,
                 bound_applies=bool(np.isfinite(bound)), bound=bound)
        )  # fmt: skip
    grid = itertools.product(("linear", "softplus"), (1.0, 2.0, 4.0), ("uniform", "rademacher"), (0.5, 2.0))
    for (shape, c, kind, scale), x in itertools.product(grid, (0.25, 1.0, 2.0)):
        gain = scale * x * ((c - 1) / 2 - x)
        exact = gain if shape == "linear" else float("nan")
        rows["theory_gain"].append(
            fill("theory_gain", shape=shape, c=c, shift=kind, scale=scale, bias=x * scale, draws=500,
                 gain=gain + 0.02, gain_se=0.01, exact=exact, bound=gain - x, limit=0.5 * scale * (c > 1))
        )  # fmt: skip
    return rows


def make_signs(cells=ONE, seeds=(0, 1, 2), groups=("all", "conv"), shares=(0.25, 0.5, 1.0), n=2):
    """Rows of directions of kind sign whose index is 4 (share - 1/2) + seed / 10."""
    rows = {"asymmetry": [], "directions": [], "shift": []}
    for (dataset, model, recipe), seed, group, share, k in itertools.product(
        cells, seeds, groups, shares, range(n)
    ):
        names = {"dataset": dataset, "model": model, "recipe": recipe, "seed": seed, "solution": "sgd"}
        names |= {"probe": f"sign-{group}-{share}", "kind": "sign", "group": group, "k": k}
        index = 4 * (share - 0.5) + seed / 10
        rows["asymmetry"].append(fill("asymmetry", **names, status="symmetric", asymmetry_index=index))
        rows["directions"].append(fill("directions", **names, sign_agreement=share))
        rows["shift"].append(fill("shift", **names, policy="fixed", delta_over_r=0.0, gap=1.0))
    return rows


def with_signs(folder, **choices):
    rows, more = make_rows(), make_signs(**choices)
    return through_parquet(folder, {name: rows[name] + more.get(name, []) for name in rows})


def make_between(cells=ONE, seeds=(0, 1, 2), recipe_name="large-batch"):
    """Lines from SWA to the SWA of another recipe and of the next seed, and a path with trained bends."""
    rows = []
    straight, inner = np.round(np.arange(-2, 3.01, 0.25), 6), np.round(np.arange(0, 1.01, 0.125), 6)
    for (dataset, model, recipe), seed in itertools.product(cells, seeds):
        cell = {"dataset": dataset, "model": model, "recipe": recipe, "seed": seed}
        for name, path, stop_recipe, stop_seed, height, ts in (
            ("to-recipe", "linear", recipe_name, seed, 0.01, straight),
            ("to-seed", "linear", recipe, seed + 1, 2.0 + seed, straight),
            ("curve", "bezier", recipe, seed + 1, 0.02, inner),
        ):
            for t in ts:
                train = 0.01 + 0.01 * t + height * max(4 * t * (1 - t), -3)
                rows.append(
                    fill("interpolation", **cell, line=name, path=path, start="swa", stop="swa",
                         stop_recipe=stop_recipe, stop_seed=stop_seed, t=t, offset=10 * t,
                         bn_policy="refreshed", train_loss=max(train, 0.001), test_loss=max(train, 0.0) + 0.1,
                         train_accuracy=0.9, test_accuracy=0.8)
                )  # fmt: skip
    return {"interpolation": rows}


BETWEEN = ("line-to-recipe", "line-to-seed", "line-curve")


def through_parquet(folder, rows):
    """Tables as the workflow's scripts meet them: written and read under the declared schema."""
    frames = {}
    for name, content in rows.items():
        tables.write(folder / f"{name}.parquet", name, content)
        frames[name] = tables.read(folder / f"{name}.parquet", name).to_pandas()
    return frames


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return through_parquet(tmp_path_factory.mktemp("tables"), make_rows())


def texts(figure):
    """Texts that are seen, with their boxes in pixels."""
    FigureCanvasAgg(figure).draw()
    hidden = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            slack = 1e-6 * (high - low)
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                if not low - slack <= tick.get_loc() <= high + slack:  # exists but is not drawn
                    hidden |= {tick.label1, tick.label2}
    seen = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip() and t not in hidden]
    return [(t.get_text(), t.get_window_extent()) for t in seen]


def overlaps(figure):
    """Pairs of texts that share more than a pixel in both directions."""
    found = []
    for (a, x), (b, y) in itertools.combinations(texts(figure), 2):
        wide = min(x.x1, y.x1) - max(x.x0, y.x0)
        high = min(x.y1, y.y1) - max(x.y0, y.y0)
        if wide > 1 and high > 1:
            found.append((a, b))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_draws_and_saves(name, data, tmp_path):
    figure = figures.draw(name, data, SPEC)
    png, svg = tmp_path / "out" / "a.png", tmp_path / "out" / "a.svg"
    figures.save(figure, png, svg, SPEC["style"])
    assert png.read_bytes().startswith(b"\x89PNG")
    assert b"Matplotlib" not in png.read_bytes()
    assert "<svg" in svg.read_text()
    assert "dc:date" not in svg.read_text()
    assert sorted(p.name for p in png.parent.iterdir()) == ["a.png", "a.svg"]
    assert any(axes.lines for axes in figure.axes)


@pytest.mark.parametrize("name", NAMES)
def test_several_cells_do_not_overlap(name, tmp_path):
    probes = ("uniform", "gaussian", "filter", "sign-half", "hessian_1", "pca_1", "bn-only-gaussian")
    cells = MANY if name.startswith("prevalence") else [*MANY, ("digits", "resnet8-plain", "quick")]
    frames = through_parquet(tmp_path, make_rows(cells, seeds=(0, 1), probes=probes))
    figure = figures.draw(name, frames, SPEC)
    assert overlaps(figure) == []
    if not name.startswith(("toy", "theory")):
        panels = {"training": 2, "curves-uniform": 2, "shift": len(probes), "sensitivity": 6}
        panels |= {"plane-solutions": 2, "plane-iterates": 2}
        assert len(figure.axes) == len(cells) * panels.get(name, 3)


def test_overlap_check_can_fail():
    from matplotlib.figure import Figure

    figure = Figure()
    figure.text(0.5, 0.5, "one")
    figure.text(0.51, 0.5, "other")
    assert overlaps(figure) == [("one", "other")]


@pytest.mark.parametrize("name", NAMES)
def test_same_bytes(name, data, tmp_path):
    for i in range(2):
        figures.save(
            figures.draw(name, data, SPEC), tmp_path / f"{i}.png", tmp_path / f"{i}.svg", SPEC["style"]
        )
    assert (tmp_path / "0.svg").read_bytes() == (tmp_path / "1.svg").read_bytes()
    assert (tmp_path / "0.png").read_bytes() == (tmp_path / "1.png").read_bytes()
    other = figures.draw(name, data, {**SPEC, "style": {"dpi": 60, "font_size": 11}})
    figures.save(other, tmp_path / "2.png", tmp_path / "2.svg", {"dpi": 60, "font_size": 11})
    assert (tmp_path / "0.svg").read_bytes() != (tmp_path / "2.svg").read_bytes()


def test_same_bytes_in_another_process(tmp_path):
    """Nothing in a file hangs on hash seeds or addresses."""
    code = (
        "import sys; sys.path[:0] = [{scripts!r}]\n"
        "from valleys import figures, tables\n"
        "data = {{'training': tables.read({table!r}, 'training').to_pandas()}}\n"
        "figure = figures.draw('training', data, {spec!r})\n"
        "figures.save(figure, {out!r} + '.png', {out!r} + '.svg', {style!r})\n"
    )
    data = through_parquet(tmp_path, {"training": make_rows()["training"]})
    table = str(tmp_path / "training.parquet")
    scripts = str(Path(figures.__file__).parents[1])
    out = str(tmp_path / "far")
    code = code.format(scripts=scripts, table=table, spec=SPEC, out=out, style=SPEC["style"])
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONHASHSEED": "7"})
    figures.save(figures.draw("training", data, SPEC), tmp_path / "a.png", tmp_path / "a.svg", SPEC["style"])
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "far.svg").read_bytes()


@pytest.mark.parametrize("name", [*NAMES, "sign"])
def test_no_rows(name, tmp_path):
    frames = through_parquet(tmp_path, {key: [] for key in tables.declared()})
    figure = figures.draw(name, frames, SPEC)
    assert any("Nothing to draw" in t.get_text() for t in figure.texts)
    assert figures.caption(name, frames, SPEC).startswith("Nothing to draw")
    figures.save(figure, tmp_path / "a.png", tmp_path / "a.svg", SPEC["style"])


@pytest.mark.parametrize("name", ["curves-other", "line-other", "plane-other"])
def test_no_such_probe_or_line(name, data):
    """A probe of the config that applies to no cell."""
    assert "other" in figures.draw(name, data, SPEC).texts[0].get_text()


@pytest.mark.parametrize("name", NAMES)
def test_one_seed_of_one_direction(name, tmp_path):
    frames = through_parquet(tmp_path, make_rows(seeds=(5,), solutions=("swa",), n=1))
    figures.save(figures.draw(name, frames, SPEC), tmp_path / "a.png", tmp_path / "a.svg", SPEC["style"])
    assert "nan" not in figures.caption(name, frames, SPEC)


@pytest.mark.parametrize("bad", [float("inf"), float("nan"), 1e30])
def test_diverged_run(bad, tmp_path):
    rows = make_rows()
    rows["training"][7]["train_loss"] = bad
    for name in ("curves", "interpolation"):
        for row in rows[name][:5]:
            row["train_loss"] = row["test_loss"] = bad
    rows["asymmetry"][0] |= {"rise_minus": bad, "status": "not_finite"}
    frames = through_parquet(tmp_path, rows)
    for name in NAMES[:4]:
        figure = figures.draw(name, frames, SPEC)
        figures.save(figure, tmp_path / "a.png", tmp_path / "a.svg", SPEC["style"])
        figures.caption(name, frames, SPEC)
    for axes in figures.draw("curves-uniform", frames, SPEC).axes:
        assert axes.get_ylim()[1] < 100 or bad == 1e30
    assert "1 epoch without a finite" in figures.caption("training", frames, SPEC) or bad == 1e30


def test_unknown_name(data):
    for name in ("surface", "curves", "line-", "plane"):
        with pytest.raises(ValleysError, match="not known"):
            figures.draw(name, data, SPEC)


def test_unknown_palette(data):
    with pytest.raises(ValleysError, match=r"figures\.palette"):
        figures.draw("training", data, {**SPEC, "style": {"palette": "rainbow"}})


@pytest.mark.parametrize("palette", ["petroff10", "tableau-colorblind10", "Dark2"])
def test_palettes_keep_what_meets_apart(palette):
    look = figures._Look({**figures.STYLE, "palette": palette})
    for things in (("train", "test"), ("sgd", "swa", "descent"), ("paper", "converged"), ("fixed", "free")):
        assert len({look.colour(thing) for thing in things}) == len(things)


def test_global_style_is_left_alone(data):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    figures.draw("training", data, SPEC)
    assert dict(mpl.rcParams) == before


def test_names_are_not_read_as_mathematics(tmp_path):
    frames = through_parquet(tmp_path, make_rows([("a$b", "c$_d^", "quick")]))
    figure = figures.draw("training", frames, SPEC)
    figures.save(figure, tmp_path / "a.png", tmp_path / "a.svg", SPEC["style"])


# What is drawn --------------------------------------------------------------------------------------


def test_training_lines(data):
    figure = figures.draw("training", data, SPEC)
    loss = figure.axes[0]
    mean = next(line for line in loss.lines if line.get_linewidth() == 1.6 and line.get_linestyle() == "--")
    assert list(mean.get_xdata()) == [2, 4, 6, 8]
    assert list(mean.get_ydata()) == pytest.approx([2 / e + 1 for e in (2, 4, 6, 8)])
    assert max(line.get_ydata().max() for line in loss.lines if len(line.get_xdata()) > 2) < 99  # no descent
    assert any(line.get_xdata()[0] == 4 == line.get_xdata()[1] for line in loss.lines)  # SWA's start


def test_curves_are_rises_over_radius(data):
    figure = figures.draw("curves-uniform", data, SPEC)
    mean = next(line for line in figure.axes[0].lines if line.get_linewidth() == 1.6)
    assert mean.get_xdata() == pytest.approx(np.linspace(-1, 1, 11))
    assert mean.get_ydata()[[0, 5, 10]] == pytest.approx([4, 0, np.mean([0.5, 1.5, 2.5, 3.5])])
    test = [line for line in figure.axes[0].lines if line.get_linewidth() == 1.6][1]
    assert test.get_ydata()[[0, 5]] == pytest.approx([3.9, 0])


def test_coarse_curves_of_an_adaptive_probe_are_drawn_at_all_points(data):
    """Some curves have half of the points: the mean at each offset is over all of them."""
    curves = data["curves"]
    coarse = (curves["k"] == 0) & (curves["seed"] < 2)
    at = curves.groupby(["seed", "solution", "k"]).cumcount()
    step = pd.Series(1, index=curves.index).where(~coarse, 2)
    some = curves.assign(step=step)[~coarse | (at % 2 == 0)].reset_index(drop=True)
    assert len(some) < len(curves)
    means = []
    for table in (curves, some):
        axes = figures.draw("curves-uniform", {**data, "curves": table}, SPEC).axes[0]
        means.append(next(line for line in axes.lines if line.get_linewidth() == 1.6))
    assert means[1].get_xdata() == pytest.approx(np.linspace(-1, 1, 11))
    assert means[1].get_ydata() == pytest.approx(means[0].get_ydata(), abs=0.05)


def test_the_prevalence_caption_counts_verdicts_that_hang_on_a_subset(data):
    table = data["asymmetry"]
    certain = pd.Series(None, index=table.index, dtype=object)
    certain.iloc[:4] = [True, False, True, True]
    told = figures.caption("prevalence", {**data, "asymmetry": table.assign(certain=certain)}, SPEC)
    assert "The verdict of 1 of 4 on a subset of the images might be another on all. Asymmetric" in told
    assert "subset" not in figures.caption("prevalence", data, SPEC)


def test_line_band_is_the_t_interval():
    values = np.random.default_rng(0).normal(size=(5, 3))
    values[0, 1] = np.nan
    mean, low, high = figures._band(values, 0.9)
    for k in range(3):
        expected = mean_interval(values[np.isfinite(values[:, k]), k], 0.9)
        assert (mean[k], low[k], high[k]) == pytest.approx((expected.estimate, expected.low, expected.high))


@pytest.mark.parametrize("name", BETWEEN)
@pytest.mark.parametrize("seeds", [(0, 1, 2), (4,)])
def test_lines_between_cells_say_where_their_ends_are(name, seeds, tmp_path):
    cells = [*MANY, ("digits", "resnet8-plain", "quick")]
    frames = through_parquet(
        tmp_path, make_between(cells, seeds, recipe_name="large-batch-and-a-rather-long-name")
    )
    figure = figures.draw(name, frames, SPEC)
    assert overlaps(figure) == []
    figures.save(figure, tmp_path / "a.png", tmp_path / "a.svg", SPEC["style"])
    seen = [text for text, _ in texts(figure)]
    first, second = ("seed 4", "seed 5") if len(seeds) == 1 else ("a seed", "the next seed")
    if name == "line-to-recipe":
        first, second = "quick", "large-batch-and-a…"
    assert f"swa\n{first}" in seen
    assert f"swa\n{second}" in seen
    caption = figures.caption(name, frames, SPEC)
    full = "large-batch-and-a-rather-long-name" if name == "line-to-recipe" else second
    assert f"t = 0 is swa of {first}, t = 1 is swa of {full}" in caption


def test_barriers_are_told_with_their_intervals(tmp_path):
    frames = through_parquet(tmp_path, make_between())
    found = mean_interval([2.0, 3.0, 4.0], SPEC["level"])
    mean, low, high = (figures.number(value) for value in (found.estimate, found.low, found.high))
    numbers = f"{mean} ({low} to {high})"
    caption = figures.caption("line-to-seed", frames, SPEC)
    assert f"barrier: train {numbers}, test {numbers} nats" in caption
    caption = figures.caption("line-curve", frames, SPEC)
    assert "barrier: train 0.02 (0.02 to 0.02)" in caption
    assert f"on the straight line train {numbers}" in caption


def test_a_path_is_drawn_with_the_straight_line_between_its_ends(tmp_path):
    def dotted(frames):
        loss = figures.draw("line-curve", frames, SPEC).axes[0]
        return [line for line in loss.lines if line.get_linestyle() == ":"]

    rows = make_between()
    train, _ = dotted(through_parquet(tmp_path, rows))
    assert train.get_xdata() == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert train.get_ydata().max() == pytest.approx(3.0 + 0.015)
    rows["interpolation"] = [row for row in rows["interpolation"] if row["line"] != "to-seed"]
    assert dotted(through_parquet(tmp_path, rows)) == []


def test_line_keeps_the_middle_readable(data):
    """The test loss explodes at t = 3; the axes do not follow it."""
    loss, change, error = figures.draw("line-swa-descent", data, SPEC).axes
    assert loss.get_ylim()[1] < 10
    assert loss.get_ylim()[0] >= 0
    assert change.get_ylim()[1] < 5
    assert error.get_ylim()[0] == 0
    names = {t.get_text() for t in loss.texts}
    assert names == {"swa", "descent"}


def test_prevalence_counts(data):
    counts = figures.prevalence(data["asymmetry"], 0.95, 2.0)
    assert list(counts["solution"]) == ["sgd", "swa"]
    row = counts.iloc[0]
    assert (row["n"], row["asymmetric"], row["symmetric"], row["not_minimum"]) == (12, 6, 3, 3)
    expected = wilson(6, 12)
    assert (row["asymmetric_low"], row["asymmetric_high"]) == (expected.low, expected.high)
    labels = [t.get_text() for t in figures.draw("prevalence", data, SPEC).axes[0].texts]
    assert labels == ["6/12", "6/12", "asymmetric (c* ≥ 2)"]


def test_shift_curves_are_medians(data):
    figure = figures.draw("shift", data, SPEC)
    (panel,) = figure.axes
    fixed, free = (line for line in panel.lines if line.get_linewidth() == 1.6)
    assert fixed.get_xdata() == pytest.approx(np.arange(-10, 11) / 40)
    assert fixed.get_ydata()[[10, 14]] == pytest.approx([1, 0.5 / 1.5])
    assert free.get_ydata()[[10, 14]] == pytest.approx([1, 0.2])
    assert [t.get_text() for t in panel.texts] == ["n = 12", "uniform"]  # three seeds of four, sgd only


def test_shift_leaves_out_kind_sign_and_what_is_not_finite(tmp_path):
    frames = with_signs(tmp_path)
    assert len(figures.draw("shift", frames, SPEC).axes) == 1
    bad = frames["shift"]["delta_over_r"].where(frames["shift"]["k"] == 0, np.nan) * np.nan
    for table in (frames["shift"].assign(relative_gap=bad, gap=bad),):
        figures.draw("shift", frames | {"shift": table}, SPEC)
        assert "no gap to remove" in figures.caption("shift", frames | {"shift": table}, SPEC)


def test_measured_gains_are_means_over_minima(data):
    (panel,) = figures.draw("theory-measured", data, SPEC).axes
    means = {bars.lines[0].get_color(): bars.lines[0].get_ydata() for bars in panel.containers[::2]}
    # Scale 1/4, biases of 1/8 and 1/4, seeds 0 to 2.
    assert [list(y) for y in means.values()] == [
        pytest.approx(y) for y in ([0.0635, 0.126], [-0.03025, -0.0615])
    ]
    tests = [bars.lines[0].get_ydata()[0] for bars in panel.containers[1::2]]
    assert tests == pytest.approx([0.0635 / 2, -0.03025 / 2])
    assert [t.get_text() for t in panel.texts] == ["n = 6 + 3", "uniform"]
    text = figures.caption("theory-measured", data, SPEC)
    assert "• digits / mlp, uniform: asymmetric +0.0635 (0.061 to 0.066) nats" in text
    assert "positive in 0 % of all rows of the table with the window of Definition 1, and in 0 %" not in text


def test_wide_intervals_do_not_hide_the_means(data):
    table = data["theory_measured"]
    asymmetric = table["status"] == "asymmetric"
    table = table[~asymmetric | (table["seed"] < 2)]  # two minima, far apart: an interval 12.7 times as wide
    table = table.assign(gain=table["gain"].where(~asymmetric | (table["seed"] == 0), 0.12))
    (panel,) = figures.draw("theory-measured", data | {"theory_measured": table}, SPEC).axes
    low, high = panel.get_ylim()
    drawn = np.concatenate([bars.lines[0].get_ydata() for bars in panel.containers])
    assert low < drawn.min() < 0 < drawn.max() < high
    assert high - low < 2.5 * (drawn.max() - drawn.min())


def test_sensitivity_panels(data):
    figure = figures.draw("sensitivity", data, SPEC)
    assert len(figure.axes) == 6
    dotted = [[line.get_linestyle() for line in axes.lines].count(":") for axes in figure.axes]
    assert dotted == [0, 0, 0, 0, 1, 0]  # rows of min_span, columns of zeta_max
    (line,) = (bars.lines[0] for bars in figure.axes[0].containers)
    assert line.get_ydata() == pytest.approx([100 * 9 / 60, 100 * 8 / 60, 100 * 6 / 60])
    text = figures.caption("sensitivity", data, SPEC)
    assert "• digits / mlp, uniform: 13.3 % as set; 10 % to 15 % over all settings (n = 60)" in text


def test_signs(tmp_path):
    frames = with_signs(tmp_path)
    figure = figures.draw("sign", frames, SPEC)
    figures.save(figure, tmp_path / "a.png", tmp_path / "a.svg", SPEC["style"])
    assert overlaps(figure) == []
    assert len(figure.axes) == 2
    for axes in figure.axes:
        (means,) = (line for line in axes.lines if line.get_linewidth() == 0.8 and len(line.get_xdata()) > 2)
        # -u of share 1 is drawn at 0; that of 0.25 too, at 75; at 50 there are directions probed.
        assert means.get_xdata() == pytest.approx([0, 25, 50, 75, 100])
        assert means.get_ydata() == pytest.approx([-2.1, -0.9, 0.1, 0.9, 2.1])


def test_signs_of_several_cells_do_not_overlap(tmp_path):
    cells = [*MANY, ("digits", "resnet8-plain", "quick")]
    rows = make_signs(cells, groups=("all", "bn_weight", "conv", "classifier"))
    for name in ("asymmetry", "directions"):  # a cell without a group
        rows[name] = [r for r in rows[name] if (r["model"], r["group"]) != ("resnet8-plain", "bn_weight")]
    figure = figures.draw("sign", through_parquet(tmp_path, rows), SPEC)
    assert overlaps(figure) == []
    assert len(figure.axes) == 12
    assert [t.get_text() for axes in figure.axes for t in axes.texts].count("not probed") == 1


@pytest.mark.parametrize("bad", [float("nan"), 1e30])
def test_signs_without_an_index(tmp_path, bad):
    frames = with_signs(tmp_path, seeds=(0,), n=1)
    for rows in (slice(-1, None), slice(None)):
        table = frames["asymmetry"].copy()
        table.loc[table.index[rows], "asymmetry_index"] = bad
        figures.draw("sign", frames | {"asymmetry": table}, SPEC)
        assert "nan" not in figures.caption("sign", frames | {"asymmetry": table}, SPEC)


def test_prevalence_leaves_out_kind_sign(tmp_path, data):
    frames = with_signs(tmp_path)
    assert figures.caption("prevalence", frames, SPEC) == figures.caption("prevalence", data, SPEC)
    assert len(figures.draw("prevalence", frames, SPEC).axes[0].texts) == 3


def test_prevalence_counts_uneven_rises_on_either_side(data):
    rows = data["asymmetry"][data["asymmetry"]["solution"] == "sgd"]
    index = np.log([2.0, 0.5, 1.99, 0.51, 7.0]).tolist() + [np.nan] * (len(rows) - 5)
    counts = figures.prevalence(rows.assign(asymmetry_index=index), 0.95, 2.0).iloc[0]
    assert (counts["uneven"], counts["n"]) == (3, len(rows))
    assert counts["uneven_high"] == wilson(3, len(rows)).high


def test_plane_marks(data):
    left, right = figures.draw("plane-solutions", data, SPEC).axes
    for axes in (left, right):
        marks = {line.get_marker(): line for line in axes.lines}
        assert set(marks) == {"o", "s", "D", "+", "x"}
        places = {k: (float(line.get_xdata()[0]), float(line.get_ydata()[0])) for k, line in marks.items()}
        # Of the grid's points (steps 1 and 2) those nearest to (2, 0) and (3, 2).
        assert places == {"o": (0, 0), "s": (4, 0), "D": (3, 1), "+": (2, 0), "x": (3, 2)}
        assert axes.get_aspect() == 1
    assert left.child_axes[0].get_ylabel() == "train loss [nats]"
    axes = figures.draw("plane-iterates", data, SPEC).axes[0]
    path = next(line for line in axes.lines if len(line.get_xdata()) == 4)
    assert path.get_xdata() == pytest.approx([0, 1, 2, 3])
    filled = {line.get_marker(): line.get_markerfacecolor() != "none" for line in axes.lines}
    assert (filled["s"], filled["D"]) == (True, False)
    ends = {k: [line.get_xdata()[0] for line in axes.lines if line.get_marker() == k] for k in "^v"}
    assert ends == {"^": [0], "v": [3]}


def test_plane_is_that_of_the_lowest_seed(data):
    more = {name: data[name].assign(seed=7) for name in ("planes", "plane_points")}
    more["planes"]["train_loss"] += 5
    both = {name: pd.concat([more[name], data[name]]) for name in more}
    assert figures.caption("plane-solutions", both, SPEC) == figures.caption("plane-solutions", data, SPEC)


@pytest.mark.parametrize("low", [0.0, 1e-7, 0.02, 3.0])
@pytest.mark.parametrize("high", [0.0, 1e-3, 600.0])
def test_levels_rise_and_are_dense_near_the_least(low, high):
    levels = figures._levels(low + high * np.linspace(0, 1, 50) ** 2)
    steps = np.diff(levels)
    assert levels[0] == low
    assert (steps > 0).all()
    assert (np.diff(steps[1:]) > 0).all() or high == 0
    assert high == 0 or levels[-1] == pytest.approx(low + 0.81 * high, rel=0.02)
    assert len(set(figures._distinct(levels))) == len(levels) or high == 0


@pytest.mark.parametrize("bad", [float("inf"), float("nan"), 1e30])
def test_plane_with_losses_that_are_not_finite(data, bad):
    table = data["planes"].copy()
    for rows in (table["x"] > 4, table["x"] > -9):
        table.loc[rows, "train_loss"] = bad
        figure = figures.draw("plane-solutions", data | {"planes": table}, SPEC)
        assert overlaps(figure) == []
        said = figures.caption("plane-solutions", data | {"planes": table}, SPEC)
        assert "nan" not in said
    assert ("no finite train loss" in said) == (bad != 1e30)


def test_planes_stay_within_the_figure(tmp_path):
    three = [*MANY, ("digits", "resnet8-plain", "quick")]
    for cells, style in itertools.product((ONE, three), ({}, {"font_size": 12}, {"width": 12.0})):
        frames = through_parquet(tmp_path, make_rows(cells, seeds=(0,)))
        for name in ("plane-solutions", "plane-iterates"):
            figure = figures.draw(name, frames, {**SPEC, "style": style})
            FigureCanvasAgg(figure).draw()
            wide, high = figure.bbox.size
            for axes in figure.axes:
                box = axes.get_tightbbox()
                assert box.x0 > -1
                assert box.x1 < wide + 1
                assert box.y0 > -1
                assert box.y1 < high + 1


# What is said ---------------------------------------------------------------------------------------


def test_training_caption(data):
    # Test loss at the last epoch: 2 / 8 + seed, mean over seeds 0, 1, 2.
    said = figures.caption("training", data, SPEC)
    assert "digits / mlp: train loss 0.125 nats, test loss 1.25 nats, test accuracy 80 % (3 seeds)" in said


def test_prevalence_caption(data):
    share = wilson(12, 24)
    bounds = f"{100 * share.low:.1f} % to {100 * share.high:.1f} %"
    assert f"uniform: 50 % ({bounds}; n = 24); rises uneven in " in figures.caption("prevalence", data, SPEC)
    changed = data["asymmetry"].assign(status="symmetric")
    assert "uniform: 0 % (0 % to" in figures.caption("prevalence", {"asymmetry": changed}, SPEC)


def test_curves_caption(data):
    said = figures.caption("curves-uniform", data, SPEC)
    assert "digits / mlp at sgd: 4 nats at −R and 2 at +R, asymmetric 6 of 12" in said
    assert "R is 2 to 5 in 2-norm of weights (6 of 24 curves do not reach the target rise)" in said


def test_shift_caption(data):
    # gap at no shift 0.4 in both; 0.2 and 0.05 at the best.
    said = figures.caption("shift", data, SPEC)
    assert (
        "digits / mlp, uniform: b = 0: 50 % left at |δ*| = 0.1 R; b free: 12.5 % left at |δ*| = 0.1 R" in said
    )
    assert "Directions at sgd" in said


def test_sign_caption(tmp_path):
    said = figures.caption("sign", with_signs(tmp_path), SPEC)
    assert "digits / mlp, conv: −0.9 at 25 %, 0.1 at 50 %, 2.1 at 100 %" in said
    assert "(3 seeds)" in said


def test_line_caption(data):
    # Per seed the test minimum lies at 0.25, 0.5, 0.75; the train minimum at 1 in all.
    said = figures.caption("line-swa-descent", data, SPEC)
    i = mean_interval([0.25, 0.5, 0.75])
    low = f"{i.low:.3g}".replace("-", "−")
    assert f"train at t = 1 (1 to 1), test at t = 0.5 ({low} to {i.high:.3g})" in said
    assert "train loss at descent − at swa: −0.04 (−0.04 to −0.04) nats" in said


def test_plane_captions(data):
    said = figures.caption("plane-solutions", data, SPEC)
    assert (
        "digits / mlp (seed 0): least train loss 0.01 nats, 2 from sgd, 2 from swa, 1.41 from descent;"
        " least test loss 0.05 nats, 3.61 from sgd, 2.24 from swa, 1 from descent; grid step 1 by 2" in said
    )
    said = figures.caption("plane-iterates", data, SPEC)
    assert "out of the plane: sgd 1.5, descent 1.5, iterates 1.25 to 2" in said
    assert "the axes have 50 % and 25 % of the iterates' variance" in said
    assert "Batch-norm statistics: refreshed" in said


def test_toy_captions(data):
    surface = figures.caption("toy-surface", data, SPEC)
    assert (
        f"lowest loss on the grid is {figures.number(data['toy_2d_surface']['loss'].min())} nats" in surface
    )
    assert "recipe converged: loss 0.3 nats at weight 1, bias 0.5; rise 5 nats" in surface
    curves = figures.caption("toy-curves", data, SPEC)
    assert "recipe paper: 75 % of 4 draws asymmetric" in curves
    assert "recipe converged: 100 % of 4 draws asymmetric" in curves
    assert "median rise 6.5 nats at the lower end of the line and 0.75 at the upper" in curves


def test_theory_captions(data):
    said = figures.caption("theory-average", data, SPEC)
    assert "1000 chains a row, 20 iterates averaged after 10 others. 48 of 72 rows are asymmetric" in said
    assert (
        "linear: the mean is on the flat side in 16 of 16 rows with c > 1; 2 times the bound in the 8" in said
    )
    assert "there 0.2 to 0.4 of the iterates' training loss stays" in said
    assert (
        "with c = 1 the mean is 0 standard errors from 0; the average has 0.25 of the iterates' loss" in said
    )
    said = figures.caption("theory-gain", data, SPEC)
    # gain > 0 at c = 2: 0.25; at c = 4: 0.25, 1; twice for shifts and scales each. The limit is 0.5 d.
    assert "linear: a gain for 8 of 8 biases below the limit and for 4 of 16 others" in said
    assert "at most 2 standard errors from the closed form" in said
    assert "drawn for d = 2, told of all 2 values of d" in said


def test_theory_figures_show_what_the_tables_hold(data):
    top = figures.draw("theory-average", data, SPEC).axes[0]
    assert top.get_yscale() == "log"
    bounds = [line for line in top.lines if line.get_marker() == "_"]
    assert len(bounds) == 4  # a noise each, of its positive bounds only
    assert all(len(line.get_xdata()) == 1 for line in bounds)
    axes = figures.draw("theory-gain", data, SPEC).axes
    assert len(axes) == 4
    limits = [line.get_xdata()[0] for line in axes[0].lines if line.get_marker() == "|"]
    assert limits == [0.5, 0.5]


def test_long_findings_are_cut(tmp_path):
    cells = [("digits", f"m{i}", "quick") for i in range(9)]
    frames = through_parquet(tmp_path, make_rows(cells, seeds=(0,), n=1))
    said = figures.caption("training", frames, SPEC)
    assert "m5:" in said
    assert "m6:" not in said
    assert "and 3 more" in said


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (-0.5, "−0.5"),
        (1234.6, "1235"),
        (0.12345, "0.123"),
        (3.2e-7, "3.20 × 10⁻⁷"),
        (999.7, "1000"),
        (float("nan"), "not finite"),
    ],
)
def test_number(value, text):
    assert figures.number(value) == text


def test_every_figure_of_the_config_is_known(experiment_config):
    from valleys.config import Experiment

    experiment = Experiment(experiment_config)
    for name in experiment.figures():
        assert figures.title(name)
        assert re.fullmatch(r"[A-Za-z0-9_.-]+", name)
    assert set(figures.CAPTIONS) == set(figures._DRAW) == set(figures._SEEN)
