"""Small tables that conform to the schemas, with known contents, for tests of what is drawn from them."""

import itertools

import numpy as np
from valleys.results.stats import wilson
from valleys.storage import tables

NAMES = ["training", "prevalence", "curves-uniform", "line-swa-descent", "shift", "toy-surface", "toy-curves"]
NAMES += ["toy-angles"]
NAMES += ["plane-solutions", "plane-iterates"]
NAMES += ["theory-average", "theory-gain", "sensitivity", "theory-measured"]
SPEC = {"style": {"dpi": 60}, "swa_start": {"quick": 4}, "c": 2.0, "level": 0.95, "version": 1}
ONE = [("digits", "mlp", "quick")]
MANY = [
    ("digits", "resnet8-bn", "quick"),
    ("fashion-mnist-of-zalando", "preresnet164-wide-without-normalisation", "a_recipe_with_a_long_name"),
]


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
            if epoch > 4:
                rows["training"].append(
                    fill("training", **cell, phase="cooldown", epoch=epoch, lr=0.1 * (8.5 - epoch) / 4,
                         train_loss=0.25 / epoch, train_accuracy=0.95, **seen)
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
    for recipe, draw in itertools.product(("released", "converged"), range(4)):
        status = "not_minimum" if recipe == "released" and draw == 3 else "asymmetric"
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
        for rise in (1.0, 2.0):
            make_scan(rows, recipe, draw, rise)
    return rows | make_simulations()


def make_scan(rows, recipe, draw, rise):
    """Add a scan of the toy: c* is 1 + 4 rise at every second angle, and 1 at the others."""
    names = {"recipe": recipe, "draw": draw, "rise": rise}
    for angle in range(0, 180, 15):
        hit = angle % 30 == 0
        status = "asymmetric" if hit else "symmetric"
        about = {"status": status, "c_star": 1 + 4 * rise if hit else 1.0, "flat_side": int(hit)}
        rows["toy_2d_angles"].append(fill("toy_2d_angles", **names, angle=float(angle), **about))
    about = {"asymmetric_angles": 0.5, "asymmetric_random": 0.25, "found": draw > 0, "c_star": 1 + 4 * rise}
    rows["toy_2d_scans"].append(fill("toy_2d_scans", **names, **about))


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
                 bound_applies=bool(np.isfinite(bound)), bound=bound,
                 inside=shape == "linear" and c == 4 and level == 0.5)
        )  # fmt: skip
    grid = itertools.product(("linear", "softplus"), (1.0, 2.0, 4.0), ("uniform", "rademacher"), (0.5, 2.0))
    for (shape, c, kind, scale), x in itertools.product(grid, (0.25, 1.0, 2.0)):
        gain = scale * x * ((c - 1) / 2 - x)
        exact = gain if shape == "linear" else float("nan")
        rows["theory_gain"].append(
            fill("theory_gain", shape=shape, c=c, shift=kind, scale=scale, bias=x * scale, draws=500,
                 gain=gain + 0.02, gain_se=0.01, exact=exact, bound=gain - x, limit=0.5 * scale * (c > 1),
                 inside=kind == "rademacher" and c > 1 and x < 0.5)
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
