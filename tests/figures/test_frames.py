"""What figures take from tables."""

import numpy as np
import pytest
from valleys.figures import frames
from valleys.results.stats import mean_interval

pytestmark = pytest.mark.usefixtures("no_warnings")


def test_line_band_is_the_t_interval():
    values = np.random.default_rng(0).normal(size=(5, 3))
    values[0, 1] = np.nan
    mean, low, high = frames.mean_band(values, 0.9)
    for k in range(3):
        expected = mean_interval(values[np.isfinite(values[:, k]), k], 0.9)
        assert (mean[k], low[k], high[k]) == pytest.approx((expected.estimate, expected.low, expected.high))
