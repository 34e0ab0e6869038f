"""Kernel calls that are checked once and made many times without Python."""

from __future__ import annotations

import threading
from functools import partial

import numpy as np
import pytest

from nnlite.geometry import EltwiseGeometry, pool2d_geometry
from nnlite.kernels import VARIANTS, unavailable
from nnlite.kernels.native import kept, native_info
from nnlite.layout import channels_last

pytestmark = pytest.mark.skipif(unavailable("native") is not None, reason=f"native: {unavailable('native')}")


def native(kernel):
    return next(variant.run for variant in VARIANTS[kernel] if variant.backend == "native")


def doubling(x, y):
    """y = x + x"""
    return partial(native("combine"), EltwiseGeometry(x.size), x, x, y, None)


def test_calls_are_made_in_order_each_time_and_not_before():
    a, b, c = (np.full(1000, value, np.float32) for value in (1, -7, -7))
    calls = kept([doubling(a, b), doubling(b, c)])
    assert (b == -7).all() and (c == -7).all()
    calls()
    assert (b == 2).all() and (c == 4).all()
    a[:] = 10  # memory is read when a call is made, not when it was kept
    calls()
    assert (c == 40).all()


def test_a_pool_and_what_follows_it_equal_single_calls():
    x = channels_last(np.random.default_rng(0).standard_normal((2, 16, 9, 7)).astype(np.float32))
    geometry = pool2d_geometry(x.shape, (3, 3), (2, 2), (1, 1, 1, 1))
    y, once = (channels_last(np.zeros(geometry.y_shape, np.float32)) for _ in range(2))
    native("max_pool2d_forward")(geometry, x, once, None, None)
    kept([partial(native("max_pool2d_forward"), geometry, x, y, None, None)])()
    np.testing.assert_array_equal(y, once)
    assert np.abs(once).max() > 0


def test_operands_are_checked_when_a_call_is_kept():
    x, y = np.ones(8, np.float32), np.ones(9, np.float32)
    with pytest.raises(ValueError, match=r"y: expected shape \[8\]"):
        kept([doubling(x, y)])
    doubling(x, y[:8])()  # and after the error calls are made again, not kept
    assert (y[:8] == 2).all()


def test_a_function_that_makes_no_call_or_two_is_a_mistake():
    x, y = np.ones(8, np.float32), np.ones(8, np.float32)
    twice = doubling(x, y)
    for function, count in ((lambda: None, 0), (lambda: (twice(), twice()), 2)):
        with pytest.raises(AssertionError, match=f"one kernel call, not {count}"):
            kept([function])


def test_keeping_concerns_one_thread():
    x, y, z = (np.ones(8, np.float32) for _ in range(3))
    elsewhere = threading.Thread(target=doubling(x, z))

    def keeping():
        doubling(x, y)()
        elsewhere.start()
        elsewhere.join()

    calls = kept([keeping])
    assert (y == 1).all() and (z == 2).all()
    calls()
    assert (y == 2).all()


def test_calls_are_not_made_with_another_instruction_set_than_they_were_kept_for():
    from nnlite import _native

    isas = [isa for isa in native_info().usable_isas if isa != native_info().isa]
    if not isas:
        pytest.skip("this CPU has one instruction set")
    x, y = np.ones(8, np.float32), np.ones(8, np.float32)
    calls, before = kept([doubling(x, y)]), _native.isa()
    try:
        _native.use_isa(isas[0])
        with pytest.raises(RuntimeError, match="instruction set was changed"):
            calls()
    finally:
        _native.use_isa(before)
    calls()
    assert (y == 2).all()
