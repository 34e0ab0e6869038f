"""How many threads the kernels use. Results do not depend on it."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from pathlib import Path

from nnlite.errors import ConfigError

_lock = threading.Lock()
_count: int | None = None
_followers: list[Callable[[int], None]] = []

_CGROUPS = Path("/sys/fs/cgroup")


def _quota_v2(root: Path, own: Path) -> float:
    """Processors' worth of time that cgroup v2 grants: the least along the path to the root."""
    least = math.inf
    path = Path(str(own).lstrip("/"))
    for directory in (path, *path.parents):
        try:
            quota, period = (root / directory / "cpu.max").read_text().split()
        except (OSError, ValueError):
            continue
        if quota != "max":
            least = min(least, int(quota) / int(period))
    return least


def _quota_v1(root: Path) -> float:
    try:
        quota = int((root / "cpu" / "cpu.cfs_quota_us").read_text())
        period = int((root / "cpu" / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return math.inf
    return quota / period if quota > 0 and period > 0 else math.inf


def _own_cgroup() -> Path:
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return Path("/")
    # "0::/path" is the v2 hierarchy; inside a container it is usually "/"
    return Path(next((line[3:] for line in lines if line.startswith("0::")), "/"))


def available_processors() -> int:
    """Processors this process may use: its affinity mask and its container's quota, not the machine's."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS has no affinity masks
        count = os.cpu_count() or 1
    quota = min(_quota_v2(_CGROUPS, _own_cgroup()), _quota_v1(_CGROUPS))
    return max(1, count if quota == math.inf else min(count, math.ceil(quota)))


def _initial() -> int:
    value = os.environ.get("NNLITE_NUM_THREADS", "").strip()
    if not value:
        return available_processors()
    if not value.isascii() or not value.isdigit() or not 1 <= int(value) <= 1024:
        raise ConfigError(f"NNLITE_NUM_THREADS={value!r} must be an integer from 1 to 1024")
    return int(value)


def get_num_threads() -> int:
    """Threads that a kernel may use, the calling one included.

    By default the processors available to this process; ``NNLITE_NUM_THREADS`` overrides.
    """
    global _count
    with _lock:
        if _count is None:
            _count = _initial()
        return _count


def set_num_threads(count: int) -> None:
    """Use ``count`` threads (1 to 1024) from the next kernel on; raises ConfigError for anything else."""
    global _count
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= 1024:
        raise ConfigError(f"set_num_threads({count!r}): must be an integer from 1 to 1024")
    with _lock:
        _count = count
        for follow in _followers:
            follow(count)


def follow(setter: Callable[[int], None]) -> None:
    """Call ``setter`` with the number of threads now and whenever it changes (for backends)."""
    setter(get_num_threads())
    with _lock:
        _followers.append(setter)
