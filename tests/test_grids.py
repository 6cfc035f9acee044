"""The coarse grid of an adaptive probe."""

import pytest
from valleys import grids


@pytest.mark.parametrize(
    ("points", "zeta_max", "step"),
    [
        *((31, 0.5, 3), (21, 0.5, 2), (41, 0.5, 4), (25, 0.5, 2), (29, 0.5, 2)),
        *((11, 0.5, 1), (15, 0.5, 1), (7, 0.5, 1)),
        *((31, 0.2, 3), (31, 0.15, 1), (41, 0.15, 2), (61, 0.1, 3)),
    ],
)
def test_the_coarse_grid_is_the_smallest_that_windows_fit(points, zeta_max, step):
    assert grids.coarse_step(points, zeta_max) == step


def test_coarse_grids_are_uniform_and_share_the_middle_and_the_ends():
    for points in range(5, 203, 2):
        half, step = points // 2, grids.coarse_step(points)
        assert half % step == 0
        assert step == 1 or half // step >= grids.LEAST
        if step == 1:  # no coarser one
            assert all(half % a_side for a_side in range(grids.LEAST, half))
