"""Compiled graphs: passes, variants, weights and memory decided once, then only arithmetic."""

from __future__ import annotations

from nnlite.graph.plan.plan import Plan, compile
from nnlite.graph.plan.precision import Precision

__all__ = ["Plan", "Precision", "compile"]
