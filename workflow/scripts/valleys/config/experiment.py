"""An experiment: a config that was checked, expanded into cells. What is made of a cell is in `cells`.

Imported by the Snakefile, so nothing here imports torch.
"""

from __future__ import annotations

from valleys.config import checks
from valleys.config.cell import kept
from valleys.config.cells import Cell, Cells
from valleys.config.looks import looks_of
from valleys.config.schema import Config

__all__ = ["Cell", "Experiment"]


class Experiment(Cells):
    """A checked config with defaults filled in, and its cells.

    Where seeds are added until claims are decided, it has all that may be, and the levels of one look
    (`valleys.config.looks`); `at` has fewer.

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
        self.looks, self.given = looks_of(config), config
        super().__init__(self.looks.config_at(config, self.looks.most) if self.looks else config)
        checks.check_blocks(self)
        self.expand()
        checks.check_solutions(self)
        self.complete_variants()
        checks.check_cells(self)

    @kept
    def at(self, count: int) -> Cells:
        """Return the same experiment with the first so many of the seeds that are added."""
        assert self.looks is not None, "the seeds of this config are a list"
        found = Cells(self.looks.config_at(self.given, count))
        found.looks = self.looks
        found.expand()
        found.complete_variants()
        return found
