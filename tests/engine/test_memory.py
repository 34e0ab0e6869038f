"""The caching pool: alignment, order, reuse, statistics, threads."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import nnlite
from nnlite import layout, memory, memory_pool
from nnlite.errors import NnliteError

PACKAGE = Path(nnlite.__file__).parents[1]

MEGABYTE = 1 << 20
LIMIT = memory.limit()


@pytest.fixture(autouse=True)
def _empty_pool():
    gc.collect()
    memory.release()
    yield
    memory.set_limit(LIMIT)
    memory.release()


@pytest.mark.parametrize("shape", [(64, 3, 33, 17), (1, 1, 2000), (5000,), (70, 90), (2, 3, 64, 64, 3)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint8])
def test_arrays_are_aligned_and_ordered(shape, dtype):
    array = memory.empty(shape, dtype)
    assert (array.shape, array.dtype) == (shape, np.dtype(dtype))
    assert layout.is_channels_last(array)
    if array.nbytes >= 4096:
        assert array.ctypes.data % memory_pool.ALIGNMENT == 0
    assert memory.empty(shape, dtype, "C").flags.c_contiguous
    array[...] = 1
    assert array.min() == array.max() == 1


def test_arrays_without_elements_or_axes():
    assert memory.empty(()).shape == ()
    assert memory.empty((0, 3, 4, 4)).size == 0
    with pytest.raises(NnliteError, match="cannot be allocated"):
        memory.empty((1 << 30, 1 << 30))
    with pytest.raises(NnliteError, match="cannot be allocated"):
        memory.empty((-1, 3))


def test_memory_comes_back_and_is_reused():
    before = memory.stats()
    array = memory.empty((MEGABYTE,))
    address = array.ctypes.data
    assert memory.stats().current - before.current >= array.nbytes
    del array
    after = memory.stats()
    assert after.current == before.current
    assert after.cached >= 4 * MEGABYTE
    again = memory.empty((MEGABYTE,))
    assert again.ctypes.data == address
    assert memory.stats().cached == before.cached


def test_a_view_keeps_its_block():
    array = memory.empty((1, 8, 64, 64))
    array[...] = 3
    view = array[:, 2:5, ::2].transpose(0, 3, 2, 1)
    used = memory.stats().current
    del array
    assert memory.stats().current == used
    other = memory.empty((1, 8, 64, 64))
    other[...] = -1
    assert (view == 3).all()
    block = memory.stats().current - used
    del view
    assert memory.stats().current == used
    assert memory.stats().cached == block


def test_the_peak_is_kept():
    arrays = [memory.empty((MEGABYTE,)) for _ in range(3)]
    highest = memory.stats().current
    del arrays
    assert memory.stats().peak >= highest > memory.stats().current


def test_an_eighth_is_wasted_at_most():
    for size in (4096, 5000, 100_000, 1_234_567, 33_000_000):
        before = memory.stats().current
        array = memory.empty((size,), np.uint8)
        used = memory.stats().current - before
        assert size <= used <= max(size * 1.125, size + 8192) + 4096
        del array


def test_without_a_limit_nothing_is_cached():
    kept = memory.empty((MEGABYTE,))
    del kept
    assert memory.stats().cached > 0
    memory.set_limit(0)
    assert memory.stats().cached == 0
    array = memory.empty((MEGABYTE,))
    del array
    assert memory.stats().cached == 0
    memory.set_limit(2 * MEGABYTE)
    big, small = memory.empty((MEGABYTE,)), memory.empty((MEGABYTE // 8,))
    del big, small
    assert 0 < memory.stats().cached <= 2 * MEGABYTE


def test_release_gives_everything_back():
    array = memory.empty((MEGABYTE,))
    del array
    memory.release()
    assert memory.stats().cached == 0


def test_workspace_is_bytes():
    scratch = memory.workspace(100_000)
    assert (scratch.dtype, scratch.shape) == (np.uint8, (100_000,))
    assert scratch.ctypes.data % memory_pool.ALIGNMENT == 0


def test_threads_never_share_a_block():
    before = memory.stats().current
    wrong = []

    def work(number: int) -> None:
        rng = np.random.default_rng(number)
        for _ in range(300):
            arrays = [memory.empty((int(rng.integers(1024, 20_000)),)) for _ in range(3)]
            for array in arrays:
                array[...] = number
            wrong.extend(number for array in arrays if (array != number).any())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert memory.stats().current == before


def test_what_was_not_used_for_longest_makes_room():
    memory.set_limit(3 * 4 * MEGABYTE + MEGABYTE)
    old = [memory.empty((MEGABYTE // 2,)) for _ in range(6)]
    del old
    new = memory.empty((2 * MEGABYTE,))
    address = new.ctypes.data
    del new
    again = memory.empty((2 * MEGABYTE,))
    assert again.ctypes.data == address
    assert memory.stats().cached <= memory.limit()


@pytest.mark.parametrize("shape", [(3, 40, 50), (2, 16, 20, 20), (5, 6), (), (64, 64)])
def test_empty_like_keeps_the_memory_order(shape):
    array = np.zeros(shape, np.float32)
    for same in (array, layout.channels_last(array), array.T, array.astype(np.float64)):
        like = memory.empty_like(same)
        assert (like.shape, like.dtype, like.strides) == (same.shape, same.dtype, same.strides)


def test_the_peak_can_be_measured_anew():
    array = memory.empty((MEGABYTE,))
    del array
    memory.reset_peak()
    assert memory.stats().peak == memory.stats().current


@pytest.mark.parametrize(
    ("text", "size"),
    [("1000", 1000), ("3k", 3072), ("2M", 2 << 20), ("1.5G", 3 << 29), ("2MB", 2 * 10**6), ("0", 0)],
)
def test_the_environment_limits_what_is_kept(text, size):
    assert run_python("from nnlite import memory; print(memory.limit())", text) == str(size)


@pytest.mark.parametrize("text", ["-1", "much", "G", "1 T"])
def test_a_wrong_limit_is_named(text):
    assert "NNLITE_MEMORY_LIMIT=" in run_python("from nnlite import memory; memory.limit()", text)


def run_python(code, limit):
    """The last line that a fresh interpreter prints."""
    environment = os.environ | {"NNLITE_MEMORY_LIMIT": limit, "PYTHONPATH": str(PACKAGE)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    return (result.stdout or result.stderr).strip().splitlines()[-1]


def test_large_blocks_go_back_to_the_system_at_once():
    """Resident bytes, as the system counts them, before, with and after a released array."""
    pytest.importorskip("resource", reason="needs a POSIX system")
    if not Path("/proc/self/statm").exists():
        pytest.skip("needs /proc to count resident pages")

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    for size in (1, 24, 24):  # by malloc the second of a size would stay
        before = resident()
        array = memory.empty((size * MEGABYTE,), np.uint8)
        array[...] = 1
        assert resident() - before > 0.9 * size * MEGABYTE
        del array
        memory.release()
        assert resident() - before < 0.1 * size * MEGABYTE + 200_000


def test_the_peak_is_the_systems():
    peak = memory.peak_resident()
    if peak is None:
        pytest.skip("needs Linux's /proc")
    array = memory.empty((64 * MEGABYTE,), np.uint8)
    array[...] = 1
    assert memory.peak_resident() >= max(peak, 64 * MEGABYTE)
