"""Pairs of seeds whose solutions are aligned: which there are, and what is wrong with asking for them."""

from __future__ import annotations

from valleys.config.cells import Cell, Cells
from valleys.errors import ValleysError

SOLUTION = "sgd"


def partner(experiment: Cells, cell: Cell) -> Cell | None:
    """Return the cell whose solution is aligned to a cell's; None where there is none.

    Seeds that are asked for are paired in order, the first with the second, the third with the fourth, so
    that no two pairs share one. The first of a pair has the partner. There are no pairs where the data differ
    by seed: the two networks would be ones of other images.
    """
    if not experiment.wants(cell).alignment or experiment.differs_by_seed(cell.dataset):
        return None
    kin = [
        other
        for other in experiment.repeats_of(cell)
        if experiment.wants(other).alignment and SOLUTION in experiment.available(other)
    ]
    rank = kin.index(cell) if cell in kin else 1
    return kin[rank + 1] if rank % 2 == 0 and rank + 1 < len(kin) else None


def check_alignment(experiment: Cells) -> None:
    """Check that an entry of the grid that asks for alignment has a pair of seeds.

    Raises
    ------
    ValleysError
        For the first that has none.
    """
    for i, entry in enumerate(experiment.config["grid"]):
        if not entry.get("alignment"):
            continue
        names = [
            entry[key] if isinstance(entry[key], list) else [entry[key]]
            for key in ("dataset", "model", "recipe")
        ]
        cells = [
            cell
            for cell in experiment.cells
            if all(own in chosen for own, chosen in zip(cell.setting, names, strict=True))
        ]
        if not any(partner(experiment, cell) for cell in cells):
            differing = [name for name in names[0] if experiment.differs_by_seed(name)]
            why = (
                f"the images or labels of data set {differing[0]} differ by seed; choose a fixed split"
                if differing
                else f"it takes two seeds with a solution {SOLUTION}; add a seed"
            )
            raise ValleysError(f"config: grid.{i}.alignment: true, but there is no pair to align: {why}")
