"""The precision of a plan: which graph is compiled for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from nnlite.errors import ConfigError
from nnlite.graph.calibrate import calibrate
from nnlite.graph.ir import Graph
from nnlite.graph.passes.reduce_precision import to_bf16, to_int8, values_to_calibrate
from nnlite.layout import Array

Precision = Literal["fp32", "bf16", "int8"]


def check_precision(precision: str, calibration: Sequence[Array]) -> None:
    """Raises ConfigError for an unknown precision, or int8 without pictures to measure ranges on."""
    if precision not in get_args(Precision):
        raise ConfigError(f"precision={precision!r} must be one of {', '.join(get_args(Precision))}")
    if precision == "int8" and (not calibration or not len(calibration[0])):
        raise ConfigError(
            "precision='int8' measures ranges on a few inputs of the network's own kind; "
            "give them: compile('int8', calibration=[images])"
        )


def reduce(graph: Graph, precision: Precision, calibration: Sequence[Array]) -> Graph:
    """``graph``, after all passes, in ``precision``."""
    if precision == "bf16":
        return to_bf16(graph)
    if precision == "int8":
        return to_int8(graph, calibrate(graph, values_to_calibrate(graph), calibration))
    return graph
