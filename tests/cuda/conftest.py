"""A GPU for machines without one: see ``fake_cupy``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The stand-in for CuPy in place of CuPy; what it counts and limits."""
    import fake_cupy

    with fake_cupy.installed(monkeypatch) as state:
        yield state
