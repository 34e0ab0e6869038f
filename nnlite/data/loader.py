"""Batches of pictures, prepared ahead by threads, the same for any number of them.

    order of the epoch ─▶ decode (or cache) ─▶ transform ─▶ batch
      (seed, epoch)        worker threads, one picture a job   consumer's thread, in order

Threads, not processes: Pillow and NumPy release the interpreter's lock in what takes the time, and
pictures need not be copied between processes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
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


Schedule = list[tuple[int, list[int]]]
"""Batches to make: the epoch, and the indices of samples."""


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
        return self._without_epochs(self._batches(self._in_batches(epoch)[first:]))

    def epochs(self, epochs: Sequence[int], pictures: int) -> Generator[tuple[int, Batch], None, None]:
        """Several epochs together: (epoch, batch) of about so many pictures, which are decoded once.

        That is, of an order that is not shuffled, and where ``cache_bytes`` hold so many pictures. The
        batches of each epoch are those of :meth:`epoch`, in their order. Raises what that does.
        """
        each = {epoch: self._in_batches(epoch) for epoch in epochs}
        # At least those in hand: a picture's job waits for the one that it has in another epoch.
        some = -(-max(pictures, self._ahead) // self.batch_size)
        schedule = [
            (epoch, batch) for begin in range(0, len(self), some) for own in each.values()
            for epoch, batch in own[begin : begin + some]
        ]  # fmt: skip
        return self._batches(schedule, epochs[-1])

    def _in_batches(self, epoch: int) -> Schedule:
        generator(self.seed, epoch, 0)  # a bad seed or epoch raises here, not in a thread
        order, size = self.order(epoch).tolist(), self.batch_size
        return [(epoch, order[size * n : size * (n + 1)]) for n in range(len(self))]

    def _without_epochs(
        self, batches: Generator[tuple[int, Batch], None, None]
    ) -> Generator[Batch, None, None]:
        with closing(batches):
            for _, batch in batches:
                yield batch

    def _batches(
        self, schedule: Schedule, last: int | None = None
    ) -> Generator[tuple[int, Batch], None, None]:
        """The batches of ``schedule``; after the epoch ``last`` a decoded picture is not needed again."""
        empty = True
        with closing(self._prepared(schedule, last)) as results:
            for epoch, indices in schedule:
                kept: list[tuple[int, Array]] = []
                for index in indices:
                    result = next(results)
                    if isinstance(result, Skipped):
                        self._skipped.setdefault(index, result)
                    else:
                        kept.append((index, result))
                if kept:
                    empty = False
                    yield epoch, self._batch(kept)
        if empty and schedule:
            count = len({index for _, indices in schedule for index in indices})
            reason = self.skipped[0].reason
            raise DataError(f"none of the {count} pictures could be used; the first: {reason}")

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

    @property
    def _ahead(self) -> int:
        """Pictures in hand: bounds memory, and lets a batch get ready while the consumer is at the last."""
        return self.batch_size + 2 * self.workers

    def _prepared(self, schedule: Schedule, last: int | None) -> Generator[Array | Skipped, None, None]:
        """The results of :meth:`_prepare`, in order, computed ahead when there are workers."""
        work = ((epoch, index, epoch != last) for epoch, indices in schedule for index in indices)
        if self.workers == 0:
            for one in work:
                yield self._prepare(*one)
            return
        pending: deque[tuple[int, Future[Array | Skipped]]] = deque()
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="nnlite-loader")
        try:
            for one in work:
                if len(pending) == self._ahead:
                    yield pending.popleft()[1].result()
                wait([job for index, job in pending if index == one[1]])  # decoded once, and kept by then
                pending.append((one[1], pool.submit(self._prepare, *one)))
            while pending:
                yield pending.popleft()[1].result()
        finally:
            # Reached also when the consumer stops early: waits for the pictures in hand, no others.
            pool.shutdown(wait=True, cancel_futures=True)

    def _prepare(self, epoch: int, index: int, again: bool) -> Array | Skipped:
        if index in self._skipped:
            return self._skipped[index]
        sample = self.samples[index]
        try:
            picture = self._picture(index, again)
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

    def _picture(self, index: int, again: bool) -> Array:
        """Decoded, or kept from before; kept from now on where it will be wanted ``again``."""
        sample = self.samples[index]
        if sample.pixels is not None:
            return sample.read(channels=self.channels)  # is in memory already
        picture = self.cache.get(index)
        if picture is None:
            picture = sample.read(at_least=self.at_least, channels=self.channels)
            if again:
                self.cache.put(index, picture)
        elif not again:
            self.cache.drop(index)
        return picture


def targets_of(samples: Sequence[Sample]) -> Array:
    """What is known about ``samples``: classes int64 [N], or values float32 [N,K]."""
    if samples[0].values:
        return np.array([sample.values for sample in samples], np.float32)
    return np.array([sample.label for sample in samples], np.int64)
