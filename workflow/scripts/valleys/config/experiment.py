"""An experiment: a config that was checked, expanded into cells. What is made of a cell is in `cells`.

Imported by the Snakefile, so nothing here imports torch.
"""

from __future__ import annotations

from valleys.config import checks
from valleys.config.cells import Cell, Cells
from valleys.config.schema import Config

__all__ = ["Cell", "Experiment"]


class Experiment(Cells):
    """A checked config with defaults filled in, and its cells.

    Parameters
    ----------
    config
        As `schema.with_defaults` returns it.

    Raises
    ------
    ValleysError
        When names do not resolve or values contradict each other.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        checks.check_blocks(self)
        self.expand()
        checks.check_solutions(self)
        self.complete_variants()
        checks.check_cells(self)
