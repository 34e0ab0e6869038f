"""Compiled graphs: passes, variants, weights and memory decided once, then only arithmetic."""

from __future__ import annotations

from nnlite.graph.plan.plan import Plan, compile

__all__ = ["Plan", "compile"]
