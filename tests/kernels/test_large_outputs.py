"""Outputs that go past the caches hold what they would hold if they did not, with every instruction set."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest
from kernel_harness import FLOAT32, outputs, random_inputs, run

from nnlite import memory
from nnlite.geometry import RELU, NormGeometry, conv2d_geometry, pool2d_geometry
from nnlite.kernels import SPECS, select, unavailable
from nnlite.kernels.native import native_info

pytestmark = pytest.mark.skipif(unavailable("native") is not None, reason=f"native: {unavailable('native')}")

# Outputs so large that they go past the caches, if they are aligned (csrc/cpu/bands.h).
VAST = [
    ("conv2d_forward", conv2d_geometry((2, 32, 180, 184), (32, 1, 3, 3), pads=(1, 1, 1, 1), groups=32)),
    ("conv2d_grad_input", conv2d_geometry((2, 32, 180, 184), (32, 1, 5, 5), (2, 2), (2, 2, 2, 2), groups=32)),
    ("conv2d_forward", conv2d_geometry((1, 16, 183, 181), (64, 16, 1, 1))),
    (
        "conv2d_forward",
        conv2d_geometry((1, 8, 210, 209), (48, 4, 1, 1), groups=2),
    ),  # groups not of whole lines
    ("conv2d_grad_input", conv2d_geometry((2, 64, 260, 260), (24, 64, 2, 2), (2, 2))),
    ("max_pool2d_forward", pool2d_geometry((2, 32, 180, 184), (3, 3), (1, 1), (1, 1, 1, 1))),
    ("max_pool2d_backward", pool2d_geometry((2, 32, 180, 184), (3, 3), (2, 2), (1, 1, 1, 1))),
    ("avg_pool2d_forward", pool2d_geometry((2, 32, 180, 184), (3, 3), (1, 1), (1, 1, 1, 1))),
    ("avg_pool2d_backward", pool2d_geometry((2, 32, 180, 184), (3, 3), (2, 2), (1, 1, 1, 1))),
    ("batch_norm_training_forward", NormGeometry(66_000, 32, 1e-5, RELU, 0.0, inf)),
    ("batch_norm_training_backward", NormGeometry(66_000, 32, 1e-5, RELU, 0.0, inf)),
    ("batch_norm_inference_forward", NormGeometry(66_000, 32, 1e-5)),
]


def off_line(shape, dtype):
    """A channels-last array that starts 4 bytes after a line of the cache."""
    raw = np.empty(int(np.prod(shape)) * dtype.itemsize + 128, np.uint8)
    start = -raw.ctypes.data % 64 + 4
    array = raw[start : start + int(np.prod(shape)) * dtype.itemsize].view(dtype)
    if len(shape) <= 2:
        return array.reshape(shape)
    return np.moveaxis(array.reshape((shape[0], *shape[2:], shape[1])), -1, 1)


@pytest.fixture(params=native_info().usable_isas if unavailable("native") is None else ())
def isa(request):
    from nnlite import _native

    before = _native.isa()
    _native.use_isa(request.param)
    yield request.param
    _native.use_isa(before)


@pytest.mark.parametrize(("kernel", "geometry"), VAST)
def test_outputs_past_the_caches_are_the_same(kernel, geometry, isa):
    spec = SPECS[kernel]
    variant = select(kernel, geometry).variant
    assert variant.backend == "native"
    inputs = random_inputs(spec, geometry)
    past, through = (
        outputs(spec, geometry, FLOAT32, allocate=allocate) for allocate in (memory.empty, off_line)
    )
    for results in (past, through):
        run(variant, geometry, inputs, results)
    for name, array in past.items():
        assert array.ctypes.data % 64 == 0 or array.nbytes < memory.SMALLEST
        np.testing.assert_array_equal(array, through[name])
        assert not np.isnan(array).any() if array.dtype.kind == "f" else True
