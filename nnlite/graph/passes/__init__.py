"""Passes: pure functions from graph to graph, one file each."""

from __future__ import annotations

from nnlite.graph.passes.fold_batch_norm import fold_batch_norm
from nnlite.graph.passes.fuse_epilogue import fuse_epilogue, split_epilogue

__all__ = ["fold_batch_norm", "fuse_epilogue", "split_epilogue"]
