"""Maps as colours."""

from __future__ import annotations

import numpy as np
import pytest

from nnlite.errors import ShapeError
from nnlite.transfer.overlay import AGAINST, HEAT, IN_FAVOUR, OPACITY, heat, overlay, scaled


def test_heat_goes_through_its_stops_and_grows_lighter():
    np.testing.assert_array_equal(heat(np.linspace(0, 1, len(HEAT))), HEAT)
    np.testing.assert_array_equal(heat(np.array([0.125, -3, 7])), [[55, 10, 123], HEAT[0], HEAT[-1]])
    lightness = heat(np.linspace(0, 1, 50)) @ [0.299, 0.587, 0.114]
    assert (np.diff(lightness) > 0).all()
    assert not np.isnan(heat(np.array([np.nan]))).any()


def test_scaling():
    np.testing.assert_allclose(scaled(np.array([-2.0, 1, 0])), [-1, 0.5, 0])
    np.testing.assert_array_equal(scaled(np.zeros(3)), np.zeros(3))
    values = np.r_[np.ones(99), 100.0]
    np.testing.assert_allclose(scaled(values, 50), np.ones(100))
    np.testing.assert_allclose(scaled(np.r_[np.zeros(99), 5.0], 50)[-1], 1)  # never a division by 0


def test_overlay():
    grey = np.full((1, 3, 3), 100, np.uint8)
    drawn = overlay(grey, np.array([[0.0, 1.0, -1.0]]), signed=True)
    np.testing.assert_array_equal(drawn[0, 0], [100] * 3)
    np.testing.assert_allclose(drawn[0, 1], 100 * (1 - OPACITY) + OPACITY * np.array(IN_FAVOUR), atol=0.5)
    np.testing.assert_allclose(drawn[0, 2], 100 * (1 - OPACITY) + OPACITY * np.array(AGAINST), atol=0.5)
    one = overlay(grey, np.array([[0.0, 1.0, 0.25]]))
    np.testing.assert_allclose(one[0, 1], 25 + 0.75 * np.array(HEAT[-1]), atol=0.5)
    with pytest.raises(ShapeError, match="the map"):
        overlay(grey, np.zeros((3, 1)))
