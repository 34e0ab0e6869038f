"""Resizing, padding and pixel shuffling against PyTorch: values and gradients, options crossed."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from pytorch_oracle import T, arrays, compare, torch

import nnlite as nl
from nnlite import functional as F
from nnlite.errors import NnliteError

TARGETS = [
    {"size": (12, 5)}, {"size": 3}, {"size": (1, 1)}, {"size": (6, 7)}, {"scale_factor": 2},
    {"scale_factor": (1.5, 0.6)}, {"scale_factor": 2.3, "recompute_scale_factor": True},
]  # fmt: skip
MODES = [
    {"mode": "nearest"}, {"mode": "nearest-exact"}, {"mode": "bilinear"}, {"mode": "bicubic"},
    {"mode": "area"}, {"mode": "bilinear", "align_corners": True}, {"mode": "bicubic", "align_corners": True},
    {"mode": "bilinear", "antialias": True}, {"mode": "bicubic", "antialias": True},
]  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("target", TARGETS)
def test_interpolate(mode, target):
    if mode["mode"] == "area" and target.get("scale_factor") == (1.5, 0.6):
        target = {"size": (9, 4)}
    options = {**mode, **target}
    # PyTorch keeps the weights of antialiasing in float32.
    tolerance = 1e-6 if mode.get("antialias") else 1e-11
    ours, theirs = partial(F.interpolate, **options), partial(T.interpolate, **options)
    compare(ours, theirs, arrays((2, 3, 6, 7)), tolerance)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_interpolate_one_dimension(mode):
    for target in ({"size": 11}, {"scale_factor": 0.5}):
        options = {"mode": mode, **target}
        compare(partial(F.interpolate, **options), partial(T.interpolate, **options), arrays((2, 3, 6)))


def test_trilinear():
    options = {"size": (3, 5, 4), "mode": "trilinear"}
    compare(partial(F.interpolate, **options), partial(T.interpolate, **options), arrays((1, 2, 4, 3, 5)))


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular", "constant"])
def test_pad(mode):
    for shape, pads in [((2, 3, 5), (4, 2)), ((2, 3, 4, 5), (1, 3, 2, 0)), ((2, 3, 4, 5), (4, 4, 3, 3))]:
        compare(partial(F.pad, pad=pads, mode=mode), partial(T.pad, pad=pads, mode=mode), arrays(shape))


def test_pixels_and_channels():
    compare(lambda x: F.pixel_shuffle(x, 2), lambda x: torch.pixel_shuffle(x, 2), arrays((2, 12, 3, 4)))
    compare(lambda x: F.pixel_unshuffle(x, 3), lambda x: torch.pixel_unshuffle(x, 3), arrays((2, 2, 6, 9)))
    compare(lambda x: F.channel_shuffle(x, 3), lambda x: T.channel_shuffle(x, 3), arrays((2, 6, 3, 4)))


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("padding_mode", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("align_corners", [False, True])
def test_grid_sample_of_an_affine_grid(mode, padding_mode, align_corners):
    options = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
    theta = np.array([[[0.8, 0.3, 0.1], [-0.2, 1.1, -0.3]], [[1.3, 0.0, 0.2], [0.1, 0.7, 0.0]]])
    compare(
        lambda x, t: F.grid_sample(x, F.affine_grid(t, (2, 3, 5, 4), align_corners), **options),
        lambda x, t: T.grid_sample(x, T.affine_grid(t, (2, 3, 5, 4), align_corners), **options),
        [*arrays((2, 3, 6, 7)), theta],
        1e-9,
    )


def test_what_cannot_be_resized():
    x = nl.tensor(np.ones((1, 2, 4, 4)))
    for call, match in [
        (lambda: F.interpolate(x), "either size or scale_factor"),
        (lambda: F.interpolate(x, 3, 2.0), "either size or scale_factor"),
        (lambda: F.interpolate(x, (3, 3, 3)), "size=.* must be one number or 2"),
        (lambda: F.interpolate(x, 3, mode="nearest", align_corners=True), "align_corners"),
        (lambda: F.interpolate(x, 3, mode="linear"), "wants 3 axes"),
        (lambda: F.interpolate(x, 3, mode="best"), "'best' must be one of"),
        (lambda: F.interpolate(x, 3, mode="bilinear", align_corners=True, antialias=True), "antialias"),
        (lambda: F.channel_shuffle(x, 3), "groups=3"),
        (lambda: nl.nn.Upsample(), "either size or scale_factor"),
        (lambda: F.grid_sample(x, x, mode="best"), "'best' must be one of"),
        (lambda: F.affine_grid(x, (1, 2, 4, 4)), "must be .N,2,3."),
        (lambda: nl.nn.ReflectionPad2d((1, 2)), "padding"),
    ]:
        with pytest.raises(NnliteError, match=match):
            call()
