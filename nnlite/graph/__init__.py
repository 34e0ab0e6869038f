"""Graphs: the intermediate representation, tracing, passes and running."""

from __future__ import annotations

from nnlite.graph import branch, loop, sequences
from nnlite.graph.channel_affine import add_channel_affine
from nnlite.graph.control import control_node
from nnlite.graph.head import Head, find_head, replace_head
from nnlite.graph.infer import infer_types, node_macs
from nnlite.graph.ir import Graph, make_node, operands
from nnlite.graph.module import GraphModule
from nnlite.graph.passes import fold_batch_norm, fuse_epilogue, split_epilogue
from nnlite.graph.plan import Plan, compile
from nnlite.graph.trace import trace
from nnlite.node import Node, Value

__all__ = [
    "Graph",
    "GraphModule",
    "Head",
    "Node",
    "Plan",
    "Value",
    "add_channel_affine",
    "branch",
    "compile",
    "control_node",
    "find_head",
    "fold_batch_norm",
    "fuse_epilogue",
    "infer_types",
    "loop",
    "make_node",
    "node_macs",
    "operands",
    "replace_head",
    "sequences",
    "split_epilogue",
    "trace",
]
