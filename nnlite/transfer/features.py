"""Features of the frozen part: computed once per picture and view, kept in memory or in files.

    pictures ─▶ loader (view: epoch of the augmentation) ─▶ plan of the frozen part ─▶ Features
                                                              └─ files, by key, for the next run

The key of a file covers everything that the numbers depend on: the plan with its weights and kernels, the
preprocessing, every picture's content, the view, the seed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nnlite import __version__
from nnlite.data import Batch, Loader
from nnlite.errors import ConfigError
from nnlite.graph import Plan
from nnlite.layout import Array
from nnlite.memory import available, parse_bytes
from nnlite.ops import ArrayType
from nnlite.transfer import feature_file
from nnlite.transfer.config import FinetuneConfig
from nnlite.transfer.feature_file import Features
from nnlite.transfer.inference import Progress, silent

PRECISIONS: dict[str, np.dtype[Any]] = {"fp32": np.dtype(np.float32), "fp16": np.dtype(np.float16)}


TOGETHER = 16
"""Pictures that are decoded, and then seen in all views, at a time."""


def cache_folder() -> Path:
    """Where files are kept by default: ``nnlite/features`` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "nnlite" / "features"


class Choice(NamedTuple):
    """Where features are kept (memory, disk, off) and why, in one line."""

    mode: str
    reason: str


def choose_cache(
    config: FinetuneConfig, pictures: int, shape: Sequence[int], macs: tuple[int, int]
) -> Choice:
    """Where to keep features [pictures, *shape] of each view while the stages are trained.

    ``macs`` are those of one picture before and after the cut. Raises ConfigError when ``disk`` was asked
    for and the files would exceed the limit.
    """
    before, after = macs
    item = 4 if config.cache in ("memory", "auto") else PRECISIONS[config.cache_precision].itemsize
    size = pictures * prod(shape) * item * config.views
    text = f"{config.views} views of {pictures} pictures are {size / 2**20:.0f} MB"
    saved = before / max(before + 3 * after, 1)  # backward costs about twice what forward does
    gain = f"{text}, {saved:.0%} of the arithmetic of {config.epochs} epochs is done once"
    limit, most = parse_bytes("cache_limit", config.cache_limit), available() // 4
    if config.cache == "off":
        return Choice("off", "features are not kept: every epoch augments its pictures anew")
    if config.cache == "memory" or (config.cache == "auto" and size <= most):
        return Choice("memory", f"features stay in memory: {gain}")
    if config.cache == "disk" and size > limit:
        raise ConfigError(f"cache_limit={config.cache_limit}: {text}; raise it, or use cache='off'")
    if config.cache == "disk" or (size <= limit and size <= _free(config) // 2):
        return Choice("disk", f"features stay in files: {gain}")
    return Choice("off", f"features are not kept: {text}, more than memory and disk allow")


def _free(config: FinetuneConfig) -> int:
    folder = Path(config.cache_dir) if config.cache_dir else cache_folder()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def open_store(config: FinetuneConfig, mode: str, picture: tuple[int, ...]) -> FeatureStore:
    """The store for ``mode``."""
    if mode != "disk":
        return FeatureStore(picture)
    folder = Path(config.cache_dir) if config.cache_dir else cache_folder()
    limit = parse_bytes("cache_limit", config.cache_limit)
    return FeatureStore(picture, folder, limit, PRECISIONS[config.cache_precision])


def in_batches(plan: Plan, values: Array, batch: int) -> Array:
    """``plan`` of ``values`` [M,...], ``batch`` rows at a time."""
    parts = [plan(np.asarray(values[i : i + batch], np.float32)) for i in range(0, len(values), batch)]
    return np.concatenate(parts)


def _rows(plan: Plan, loader: Loader, epoch: int, what: str, progress: Progress) -> Iterator[Features]:
    for batch in progress(loader.epoch(epoch), what, len(loader)):
        yield Features(plan(batch.images), batch.labels, batch.indices)


@dataclass
class FeatureStore:
    """Computes features and keeps them: in memory, or below ``folder`` for later runs as well."""

    picture: tuple[int, ...]
    """[C,H,W] of a prepared picture."""
    folder: Path | None = None
    limit: int = 4 << 30
    """Bytes that all files of the folder may have together."""
    dtype: np.dtype[Any] = PRECISIONS["fp32"]
    found: int = 0
    """How many were there already."""
    _hashes: dict[Path, str] = field(default_factory=dict)

    def compute(
        self, plan: Plan, loader: Loader, epoch: int, what: str = "features", progress: Progress = silent
    ) -> Features:
        """Features of one epoch of ``loader``; only read where an earlier run has left them.

        Raises ConfigError when a file would exceed the limit, and what the loader raises.
        """
        rows = _rows(plan, loader, epoch, what, progress)
        if self.folder is None:
            gathered = Gathered(len(loader.samples))
            for some in rows:
                gathered.add(some)
            return gathered.features()
        key = self._key(plan, loader, epoch)
        path = self.folder / f"{key}.safetensors"
        known = feature_file.read(path, key)
        if known is not None:
            self.found += 1
            path.touch()
            return known
        first = next(rows)
        size = len(loader.samples) * prod(first.values.shape[1:]) * self.dtype.itemsize
        self._make_room(size)
        feature_file.write(path, key, _again(first, rows), self.dtype)
        written = feature_file.read(path, key)
        if written is None:
            raise ConfigError(f"{path}: is not what was written to it; choose another --cache-dir")
        return written

    def compute_epochs(
        self, plan: Plan, loader: Loader, epochs: Sequence[int], what: str, progress: Progress = silent
    ) -> list[Features]:
        """Features of several epochs, as :meth:`compute` has them; in memory a picture is decoded once."""
        if self.folder is not None or not epochs:
            count = len(epochs) + 1  # with the pictures as they are
            named = [(epoch, f"{what}, view {number}/{count}") for number, epoch in enumerate(epochs, 2)]
            return [self.compute(plan, loader, epoch, name, progress) for epoch, name in named]
        gathered = {epoch: Gathered(len(loader.samples)) for epoch in epochs}

        def computed() -> Iterator[Batch]:
            with closing(loader.epochs(epochs, TOGETHER)) as batches:
                for epoch, batch in batches:
                    gathered[epoch].add(Features(plan(batch.images), batch.labels, batch.indices))
                    yield batch

        for _ in progress(computed(), f"{what}, {len(epochs)} views", len(epochs) * len(loader)):
            pass
        return [one.features() for one in gathered.values()]

    def _key(self, plan: Plan, loader: Loader, epoch: int) -> str:
        parts = {
            "nnlite": __version__,
            "plan": plan.fingerprint([ArrayType((loader.batch_size, *self.picture), np.dtype(np.float32))]),
            "pictures": [
                [sample.digest(self._hashes), sample.label, sample.values] for sample in loader.samples
            ],
            "transform": repr(loader.transform),
            "options": [loader.batch_size, loader.shuffle, loader.on_bad_image, loader.at_least],
            "view": [loader.seed, epoch],
            "dtype": str(self.dtype),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _make_room(self, size: int) -> None:
        """Remove files that were not used for longest until ``size`` more bytes fit."""
        assert self.folder is not None
        if size > self.limit:
            raise ConfigError(
                f"the features need {size / 2**20:.0f} MB but --cache-limit is {self.limit / 2**20:.0f} MB; "
                "raise it, or use --cache off"
            )
        for left in self.folder.glob(".*.safetensors.*"):  # by a run that was killed while it wrote
            if time.time() - left.stat().st_mtime > 24 * 3600:
                left.unlink(missing_ok=True)
        files = sorted(self.folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime)
        total = sum(path.stat().st_size for path in files)
        for path in files:
            if total + size <= self.limit:
                break
            total -= path.stat().st_size
            path.unlink(missing_ok=True)


def _again(first: Features, rest: Iterator[Features]) -> Iterator[Features]:
    yield first
    yield from rest


class Gathered:
    """Features of at most ``most`` pictures, as they come, in one array."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.count = 0
        self._values: Array | None = None  # made when the first ones tell their shape
        self._labels: list[Array] = []
        self._indices: list[Array] = []

    def add(self, some: Features) -> None:
        """Behind those that are there."""
        values, labels, indices = some
        if self._values is None:
            shape = values.shape
            in_memory = np.empty((self.most, *shape[2:], shape[1]), values.dtype)
            self._values = np.moveaxis(in_memory, -1, 1) if len(shape) > 2 else in_memory
        self._values[self.count : self.count + len(values)] = values
        self.count += len(values)
        self._labels.append(labels)
        self._indices.append(indices)

    def features(self) -> Features:
        """All of them."""
        assert self._values is not None
        labels, indices = np.concatenate(self._labels), np.concatenate(self._indices)
        return Features(self._values[: self.count], labels, indices)
