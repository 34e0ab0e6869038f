from __future__ import annotations

import numpy as np
import pytest

from nnlite.data.random import AUGMENT, SHUFFLE, generator, permutation
from nnlite.errors import ConfigError


def test_same_key_same_numbers() -> None:
    np.testing.assert_array_equal(generator(3, 1, 7).random(50), generator(3, 1, 7).random(50))


def test_each_part_of_the_key_matters() -> None:
    keys = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (2**64 - 1, 0, 0, 0)]
    draws = {tuple(generator(*key).random(4)) for key in keys}
    assert len(draws) == len(keys)


def test_neighbours_do_not_overlap() -> None:
    # With a counter that started at `index` itself, picture 1 would repeat picture 0's second block.
    values = np.concatenate([generator(0, 0, index).random(1000) for index in range(20)])
    assert len(np.unique(values)) == values.size


def test_philox_known_answer() -> None:
    # Random123's kat_vectors, philox4x64-10: counter and key of all zeros. NumPy increments the counter
    # before the first block, so the block of counter (0,0,0,0) is reached from (2**64-1, ...) only.
    expected = [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]
    bits = np.random.Philox(key=np.zeros(2, np.uint64), counter=np.full(4, 2**64 - 1, np.uint64))
    assert [int(v) for v in bits.random_raw(4)] == expected


def test_permutation_is_one() -> None:
    order = permutation(generator(5, 2, 0, SHUFFLE), 1000)
    assert order.dtype == np.int64
    np.testing.assert_array_equal(np.sort(order), np.arange(1000))
    assert not np.array_equal(order, np.arange(1000))


def test_permutations_are_uniform() -> None:
    # 6 orders of 3, 3000 draws: chi-squared with 5 degrees of freedom, 99.9 % quantile 20.5
    orders = [tuple(permutation(generator(0, 0, i, AUGMENT), 3).tolist()) for i in range(3000)]
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 6
    assert float(((counts - 500) ** 2 / 500).sum()) < 20.5


@pytest.mark.parametrize("key", [(-1, 0, 0), (0, -1, 0), (0, 0, -1), (2**64, 0, 0)])
def test_out_of_range(key: tuple[int, int, int]) -> None:
    with pytest.raises(ConfigError, match=r"(seed|epoch|index)=.* must be in 0 \.\. 2\*\*64 - 1"):
        generator(*key)


def test_not_an_integer() -> None:
    with pytest.raises(TypeError):
        generator(1.5, 0, 0)  # type: ignore[arg-type]
