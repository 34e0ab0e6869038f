"""Cutting and joining blocks: nothing overlaps, nothing is lost, and the sum stays near what is in use."""

from __future__ import annotations

import gc
import random
import threading
from itertools import pairwise

import pytest

from nnlite.memory_pool import MAPPED, Pool

PAGE = 4096
NO_LIMIT = 1 << 40


def mapped(pool):
    """Bytes of the segments that hold what is free."""
    return sum(segment.end - segment.start for segment in pool._idle)


def test_a_freed_block_serves_smaller_ones():
    pool = Pool()
    large = pool.take(8 * MAPPED, NO_LIMIT)
    start = large.start
    pool.give(large, 8 * MAPPED, NO_LIMIT)
    parts = [pool.take(2 * MAPPED, NO_LIMIT) for _ in range(4)]
    assert [part.start - start for part in parts] == [0, 2 * MAPPED, 4 * MAPPED, 6 * MAPPED]
    assert pool.counts() == (8 * MAPPED, 8 * MAPPED, 0)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (0, 2, 1)])
def test_neighbours_join_in_any_order(order):
    pool = Pool()
    whole = pool.take(3 * MAPPED, NO_LIMIT)
    pool.give(whole, 3 * MAPPED, NO_LIMIT)
    parts = [pool.take(MAPPED, NO_LIMIT) for _ in range(3)]
    for index in order:
        pool.give(parts[index], MAPPED, NO_LIMIT)
    again = pool.take(3 * MAPPED, NO_LIMIT)
    assert again == whole
    assert pool.counts() == (3 * MAPPED, 3 * MAPPED, 0)


def test_the_smallest_range_that_fits_is_taken_and_the_last_one_among_equals():
    pool = Pool()
    blocks = {size: pool.take(size * MAPPED, NO_LIMIT) for size in (4, 2, 3)}
    equal = pool.take(2 * MAPPED, NO_LIMIT)
    for size, block in blocks.items():
        pool.give(block, size * MAPPED, NO_LIMIT)
    pool.give(equal, 2 * MAPPED, NO_LIMIT)
    assert pool.take(2 * MAPPED, NO_LIMIT) == equal
    assert pool.take(2 * MAPPED, NO_LIMIT) == blocks[2]
    assert pool.take(2 * MAPPED, NO_LIMIT) == blocks[3]


def test_small_blocks_leave_large_ranges_whole():
    pool = Pool()
    large = pool.take(4 * MAPPED, NO_LIMIT)
    pool.give(large, 4 * MAPPED, NO_LIMIT)
    small = pool.take(PAGE, NO_LIMIT)
    assert small.segment is not large.segment
    assert pool.take(4 * MAPPED, NO_LIMIT) == large


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("limit", [NO_LIMIT, 40 * MAPPED, MAPPED, 0])
def test_blocks_never_overlap_and_nothing_is_lost(seed, limit):
    pool, rng = Pool(), random.Random(seed)
    live: list[tuple[object, int]] = []
    for _ in range(2000):
        if live and rng.random() < 0.5:
            block, size = live.pop(rng.randrange(len(live)))
            pool.give(block, size, limit)
        else:
            size = PAGE * rng.choice([1, 3, 17, 64, 65, 100, 900])
            block = pool.take(size, limit)
            assert block.start % 64 == 0
            assert block.segment.start <= block.start and block.start + size <= block.segment.end
            live.append((block, size))
        current, peak, cached = pool.counts()
        assert current == sum(size for _, size in live) <= peak
        assert cached <= limit
    spans = sorted((block.start, block.start + size) for block, size in live)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    for block, size in live:
        pool.give(block, size, NO_LIMIT)
    current, _, cached = pool.counts()
    assert current == 0 and cached <= mapped(pool)
    assert len(pool._free) == len(pool._idle) == len(pool._by_start) == len(pool._by_end)  # all joined again
    pool.shrink(0)
    assert pool.counts()[2] == 0 and not pool._free


def test_parts_of_a_segment_in_use_are_given_back_too():
    pool = Pool()
    whole = pool.take(16 * MAPPED, NO_LIMIT)
    pool.give(whole, 16 * MAPPED, NO_LIMIT)
    part = pool.take(MAPPED, NO_LIMIT)
    assert pool.counts()[2] == 15 * MAPPED
    pool.shrink(0)
    assert pool.counts()[2] == 0
    assert pool.take(15 * MAPPED, NO_LIMIT).start == part.start + MAPPED  # the addresses are still ours


def test_blocks_that_the_collector_returns_in_the_midst_of_a_request_wait():
    pool = Pool()
    first = pool.take(MAPPED, NO_LIMIT)
    with pool._lock:  # as inside take()
        pool.give(first, MAPPED, NO_LIMIT)
        assert len(pool._returned) == 1
    assert pool.counts() == (0, MAPPED, MAPPED)


def test_a_request_beyond_the_memory_lets_go_of_the_cache_and_is_refused():
    pool = Pool()
    pool.give(pool.take(MAPPED, NO_LIMIT), MAPPED, NO_LIMIT)
    with pytest.raises(MemoryError):
        pool.take(1 << 62, NO_LIMIT)
    assert pool.counts() == (0, MAPPED, 0)


def test_threads_take_and_give_at_once():
    pool, failures = Pool(), []

    def work(seed):
        rng, mine = random.Random(seed), []
        try:
            for _ in range(2000):
                if mine and rng.random() < 0.5:
                    block, size = mine.pop(rng.randrange(len(mine)))
                    pool.give(block, size, NO_LIMIT)
                else:
                    size = PAGE * rng.randrange(1, 200)
                    mine.append((pool.take(size, NO_LIMIT), size))
            for block, size in mine:
                pool.give(block, size, NO_LIMIT)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    current, _, cached = pool.counts()
    assert not failures and current == 0 and cached == mapped(pool)


def test_what_malloc_gave_is_not_cut():
    pool = Pool()
    pool.give(pool.take(16 * PAGE, NO_LIMIT), 16 * PAGE, NO_LIMIT)
    part = pool.take(4 * PAGE, NO_LIMIT)
    assert pool.counts()[2] == 16 * PAGE
    pool.shrink(0)
    assert pool.counts() == (4 * PAGE, 16 * PAGE, 0)
    pool.give(part, 4 * PAGE, NO_LIMIT)
    assert pool.counts()[2] == 4 * PAGE
