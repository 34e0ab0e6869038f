"""What tests of plans share: networks as graphs, random operands, where native kernels are needed."""

from __future__ import annotations

import numpy as np
import pytest

import nnlite as nl
from nnlite.graph import GraphModule, trace
from nnlite.tensors import Tensor

RNG = np.random.default_rng(0)

only_native = pytest.mark.skipif(
    nl.kernels.unavailable("native") is not None,
    reason=f"native kernels alone have it: {nl.kernels.unavailable('native')}",
)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def traced(module, *shapes):
    """``module`` as a frozen graph for inputs of ``shapes``."""
    graph, leaves = trace(module.eval(), [Tensor(normal(*shape)) for shape in shapes])
    return GraphModule(graph, leaves=leaves).freeze().eval()
