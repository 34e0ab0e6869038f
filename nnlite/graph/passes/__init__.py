"""Passes: pure functions from graph to graph, one file each."""

from __future__ import annotations

from collections.abc import Callable

from nnlite.graph.ir import Graph
from nnlite.graph.passes.annotate import annotate
from nnlite.graph.passes.cancel_transpose import cancel_transpose
from nnlite.graph.passes.fold_batch_norm import fold_batch_norm
from nnlite.graph.passes.fold_constants import fold_constants
from nnlite.graph.passes.fold_pad import fold_pad
from nnlite.graph.passes.fuse_epilogue import fuse_epilogue, split_epilogue
from nnlite.graph.passes.fuse_gate import fuse_gate
from nnlite.graph.passes.remove_identity import remove_identity

Pass = Callable[[Graph], Graph]

FOLDS: tuple[Pass, ...] = (
    remove_identity,
    fold_constants,
    cancel_transpose,
    fold_constants,
    fold_pad,
    fold_batch_norm,
)
"""What is done to a frozen graph, in this order, with results that ONNX can say."""

PASSES: tuple[Pass, ...] = (*FOLDS, fuse_gate, fuse_epilogue)
"""All that is done to a frozen graph before it becomes a plan."""

__all__ = [
    "FOLDS",
    "PASSES",
    "Pass",
    "annotate",
    "cancel_transpose",
    "fold_batch_norm",
    "fold_constants",
    "fold_pad",
    "fuse_epilogue",
    "fuse_gate",
    "remove_identity",
    "split_epilogue",
]
