"""The sequence of seeds: repeatable, never twice the same, shared by threads."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import nnlite as nl
from nnlite import random
from nnlite.errors import ConfigError


@pytest.fixture(autouse=True)
def _start_anew():
    yield
    nl.manual_seed(0)


def test_a_seed_starts_the_sequence_anew():
    nl.manual_seed(7)
    first = [random.next_seed() for _ in range(5)]
    nl.manual_seed(7)
    assert [random.next_seed() for _ in range(5)] == first
    nl.manual_seed(8)
    assert random.next_seed() not in first


def test_a_seed_is_not_negative():
    with pytest.raises(ConfigError, match="seed=-1"):
        nl.manual_seed(-1)


def test_seeds_do_not_repeat_and_generators_differ():
    nl.manual_seed(0)
    seeds = {random.next_seed() for _ in range(1000)}
    assert len(seeds) == 1000
    assert max(seeds) > 1 << 60, "all 64 bits are used"
    a, b = random.generator().random(4), random.generator().random(4)
    assert not np.array_equal(a, b)


def test_threads_share_one_sequence():
    nl.manual_seed(3)
    expected = {random.next_seed() for _ in range(400)}
    nl.manual_seed(3)
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.extend(random.next_seed() for _ in range(100)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 400
    assert set(found) == expected
