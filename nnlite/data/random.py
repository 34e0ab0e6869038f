"""Random numbers that depend on nothing but (seed, epoch, index, stream).

Philox is a counter-based generator: its n-th block is a pure function of a key and a counter. The
key is (seed, epoch), the counter starts at (0, 0, index, stream); a picture may draw 2**128 blocks
before it reaches its neighbour's. So any picture of any epoch can be reproduced alone, and the number
of worker threads or the order in which they finish cannot change a single bit.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import operator

import numpy as np

from nnlite.errors import ConfigError
from nnlite.layout import Array

# One stream per purpose, so that shuffling never repeats the numbers that a picture's crop used.
AUGMENT = 0
SHUFFLE = 1
SPLIT = 2
MIX = 3


def _word(name: str, value: int) -> int:
    number = operator.index(value)
    if not 0 <= number < 2**64:
        raise ConfigError(f"{name}={value} must be in 0 .. 2**64 - 1")
    return number


def generator(seed: int, epoch: int, index: int, stream: int = AUGMENT) -> np.random.Generator:
    """The random generator of picture ``index`` in ``epoch``.

    Equal arguments give equal numbers, different ones independent numbers. All four are integers in
    0 .. 2**64 - 1; anything else raises ConfigError.
    """
    key = np.array([_word("seed", seed), _word("epoch", epoch)], np.uint64)
    counter = np.array([0, 0, _word("index", index), _word("stream", stream)], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def balanced_order(rng: np.random.Generator, labels: Array) -> Array:
    """len(labels) places in random order, int64, in which every class is met equally often (within one).

    Of a class with too few pictures each is repeated before any is repeated twice; of one with too many
    some are left out. Which classes get one more where the number does not divide is random too.
    """
    classes = np.unique(labels)
    counts = np.full(len(classes), len(labels) // len(classes))
    counts[permutation(rng, len(classes))[: len(labels) % len(classes)]] += 1
    drawn = []
    for label, count in zip(classes, counts.tolist(), strict=True):
        at = np.flatnonzero(labels == label)
        rounds = max(-(-count // len(at)), 1)
        drawn.append(np.concatenate([at[permutation(rng, len(at))] for _ in range(rounds)])[:count])
    places = np.concatenate(drawn)
    return places[permutation(rng, len(places))].astype(np.int64)


def permutation(rng: np.random.Generator, count: int) -> Array:
    """0 .. count-1 in random order, int64 [count].

    Sorting uniform numbers instead of ``rng.permutation``: NumPy keeps the stream of ``random`` but
    reserves the right to change the algorithm of ``permutation`` (NEP 19), and a split of a folder
    must not change with NumPy's version.
    """
    return np.argsort(rng.random(count), kind="stable").astype(np.int64)
