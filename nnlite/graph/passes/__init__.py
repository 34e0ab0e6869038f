"""Passes: pure functions from graph to graph, one file each."""

from __future__ import annotations

from nnlite.graph.passes.fold_batch_norm import fold_batch_norm

__all__ = ["fold_batch_norm"]
