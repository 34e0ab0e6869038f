"""Decoded pictures kept in memory, up to a number of bytes."""

from __future__ import annotations

import threading

from nnlite.layout import Array


class PictureCache:
    """Keeps the first pictures that fit into ``limit`` bytes; safe to use from several threads.

    Nothing is evicted for another: an epoch visits every picture once, and the least recently used one is
    then exactly the one needed next. A fixed share that always hits beats a moving one that never does.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._pictures: dict[int, Array] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._pictures)

    def get(self, key: int) -> Array | None:
        """The picture kept under ``key``, read-only, or None."""
        with self._lock:
            return self._pictures.get(key)

    def put(self, key: int, picture: Array) -> None:
        """Keep ``picture`` and make it read-only, if it is new and fits."""
        with self._lock:
            if key not in self._pictures and self.used + picture.nbytes <= self.limit:
                picture.flags.writeable = False
                self._pictures[key] = picture
                self.used += picture.nbytes

    def drop(self, key: int) -> None:
        """Keep the picture under ``key`` no longer."""
        with self._lock:
            if (picture := self._pictures.pop(key, None)) is not None:
                self.used -= picture.nbytes
