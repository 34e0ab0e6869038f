"""Batches of pictures, prepared ahead by threads, the same for any number of them.

    order of the epoch ─▶ decode (or cache) ─▶ transform ─▶ batch
      (seed, epoch)        worker threads, one picture a job   consumer's thread, in order

Threads, not processes: Pillow and NumPy release the interpreter's lock in what takes the time, and
pictures need not be copied between processes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from nnlite.data.cache import PictureCache
from nnlite.data.dataset import Sample
from nnlite.data.random import SHUFFLE, balanced_order, generator, permutation
from nnlite.data.transforms import Transform
from nnlite.errors import ConfigError, DataError, NnliteError, ShapeError
from nnlite.layout import Array


class Batch(NamedTuple):
    """images float32 [N,C,H,W], channels-last in memory; labels; indices int64 [N] of samples.

    Labels are int64 [N], or float32 [N,K] where samples have values instead of a class.
    """

    images: Array
    labels: Array
    indices: Array


class Skipped(NamedTuple):
    """A picture that was left out, and why."""

    path: Path
    reason: str


class Loader:
    """Turns samples into batches, epoch after epoch.

    samples: what a :class:`~nnlite.data.Dataset` lists. transform: picture to float32 [C,H,W],
    such as ``Preprocessing.training()``. shuffle: a new order each epoch, from ``seed``; with balance every
    class equally often (:func:`~nnlite.data.random.balanced_order`). workers:
    threads; 0 prepares everything in the caller's. on_bad_image: "fail" raises DataError at the first
    picture that cannot be read, "skip" leaves it out (its batch is then smaller) and lists it in
    :attr:`skipped`. drop_last: leave out a last batch that is not full. cache_bytes: how much memory
    decoded pictures may keep for later epochs; 0 for none. at_least, channels: see
    :func:`nnlite.data.decode`.

    The same samples, transform, seed and epoch give the same batches, bit by bit, for any ``workers``
    and ``cache_bytes``. Raises ConfigError for an option out of range.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        transform: Transform,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        workers: int = 2,
        on_bad_image: Literal["fail", "skip"] = "fail",
        drop_last: bool = False,
        cache_bytes: int = 256 * 2**20,
        at_least: tuple[int, int] | None = None,
        balance: bool = False,
        channels: int = 3,
    ) -> None:
        if not samples:
            raise ConfigError("Loader: no samples; is this part of the folder empty?")
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("workers", workers, 0),
            ("cache_bytes", cache_bytes, 0),
        ):
            if value < least:
                raise ConfigError(f"Loader: {name}={value} must be at least {least}")
        if on_bad_image not in ("fail", "skip"):
            raise ConfigError(f"Loader: on_bad_image={on_bad_image!r} must be 'fail' or 'skip'")
        if balance and (not shuffle or samples[0].values):
            raise ConfigError("Loader: balance is for shuffled pictures of one class each")
        if drop_last and len(samples) < batch_size:
            raise ConfigError(
                f"Loader: drop_last leaves nothing of {len(samples)} samples in batches of {batch_size}; "
                "use a smaller batch_size"
            )
        self.samples = samples
        self.transform = transform
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.workers = workers
        self.on_bad_image = on_bad_image
        self.drop_last = drop_last
        self.at_least = at_least
        self.balance = balance
        self.channels = channels
        self.cache = PictureCache(cache_bytes)
        self._skipped: dict[int, Skipped] = {}

    def __len__(self) -> int:
        """Batches in an epoch (at most, when pictures are skipped)."""
        full, rest = divmod(len(self.samples), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """The pictures left out so far, each once, in the order of the samples."""
        return tuple(self._skipped[index] for index in sorted(self._skipped))

    def order(self, epoch: int) -> Array:
        """The sample indices in the order in which ``epoch`` visits them, int64."""
        count = len(self.samples)
        if not self.shuffle:
            return np.arange(count, dtype=np.int64)
        rng = generator(self.seed, epoch, 0, SHUFFLE)
        return balanced_order(rng, targets_of(self.samples)) if self.balance else permutation(rng, count)

    def epoch(self, epoch: int = 0, first: int = 0) -> Generator[Batch, None, None]:
        """The batches of one epoch, without its ``first`` ones.

        Threads live as long as the iterator: until it is exhausted, raises, is closed or is dropped.
        Raises DataError naming the picture that cannot be read (or, when skipping, that every one was
        bad), ShapeError naming the one whose shape differs from its batch's, and what the transform
        raises, with the picture's name.
        """
        generator(self.seed, epoch, 0)  # a bad seed or epoch raises here, not in a thread
        return self._batches(epoch, self.order(epoch)[first * self.batch_size :], len(self) - first)

    def _batches(self, epoch: int, order: Array, count: int) -> Generator[Batch, None, None]:
        size = self.batch_size
        order = order[: count * size]
        empty = True
        with closing(self._prepared(epoch, [int(index) for index in order])) as results:
            for start in range(0, len(order), size):
                kept: list[tuple[int, Array]] = []
                for index in order[start : start + size].tolist():
                    result = next(results)
                    if isinstance(result, Skipped):
                        self._skipped.setdefault(index, result)
                    else:
                        kept.append((index, result))
                if kept:
                    empty = False
                    yield self._batch(kept)
        if empty and len(order):
            reason = self.skipped[0].reason
            raise DataError(f"none of the {len(order)} pictures could be used; the first: {reason}")

    def _batch(self, kept: list[tuple[int, Array]]) -> Batch:
        shape = kept[0][1].shape
        for index, x in kept:
            if x.shape != shape or x.ndim != 3 or x.dtype != np.float32:
                raise ShapeError(
                    f"{self.samples[index].name}: the transform gave {x.dtype} {list(x.shape)}; a batch "
                    f"needs float32 [C,H,W], all alike (the first is {list(shape)}); resize, then Normalize"
                )
        C, H, W = shape
        pixels = np.empty((len(kept), H, W, C), np.float32)
        for row, (_, x) in zip(pixels, kept, strict=True):
            row[...] = np.moveaxis(x, 0, -1)
        indices = np.array([index for index, _ in kept], np.int64)
        return Batch(np.moveaxis(pixels, -1, 1), targets_of([self.samples[i] for i in indices]), indices)

    # ------------------------------------------------------------------------------- pictures

    def _prepared(self, epoch: int, order: Sequence[int]) -> Generator[Array | Skipped, None, None]:
        """The results of :meth:`_prepare`, in order, computed ahead when there are workers."""
        if self.workers == 0:
            for index in order:
                yield self._prepare(epoch, index)
            return
        # Bounds memory, and lets one whole batch get ready while the consumer computes on the last.
        ahead = self.batch_size + 2 * self.workers
        pending: deque[Future[Array | Skipped]] = deque()
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="nnlite-loader")
        try:
            for index in order:
                if len(pending) == ahead:
                    yield pending.popleft().result()
                pending.append(pool.submit(self._prepare, epoch, index))
            while pending:
                yield pending.popleft().result()
        finally:
            # Reached also when the consumer stops early: waits for the pictures in hand, no others.
            pool.shutdown(wait=True, cancel_futures=True)

    def _prepare(self, epoch: int, index: int) -> Array | Skipped:
        if index in self._skipped:
            return self._skipped[index]
        sample = self.samples[index]
        try:
            picture = self._picture(index)
        except DataError as error:
            return self._bad(sample, error)
        try:
            return self.transform(picture, generator(self.seed, epoch, index))
        except DataError as error:  # the picture's fault as well, such as a sliver that cannot be resized
            return self._bad(sample, DataError(f"{sample.name}: {error}"))
        except NnliteError as error:
            raise type(error)(f"{sample.name}: {error}") from error
        except Exception as error:
            name = type(error).__name__
            raise RuntimeError(f"{sample.name}: the transform failed ({name}: {error})") from error

    def _bad(self, sample: Sample, error: DataError) -> Skipped:
        if self.on_bad_image == "fail":
            raise error
        return Skipped(sample.path, str(error))

    def _picture(self, index: int) -> Array:
        sample = self.samples[index]
        if sample.pixels is not None:
            return sample.read(channels=self.channels)  # is in memory already
        picture = self.cache.get(index)
        if picture is None:
            picture = sample.read(at_least=self.at_least, channels=self.channels)
            self.cache.put(index, picture)
        return picture


def targets_of(samples: Sequence[Sample]) -> Array:
    """What is known about ``samples``: classes int64 [N], or values float32 [N,K]."""
    if samples[0].values:
        return np.array([sample.values for sample in samples], np.float32)
    return np.array([sample.label for sample in samples], np.int64)
