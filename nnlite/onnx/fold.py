"""Computing while reading what depends on nothing but small constants: shapes, mostly."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnlite.layout import Array
from nnlite.node import Value
from nnlite.onnx.tensors import check_budget
from nnlite.ops import OPS, ArrayType, Context

FOLD_LIMIT = 1 << 16
"""Constant results up to this many elements are computed while reading."""


def folded(op: str, operands: Sequence[Array | None], params: Mapping[str, Any]) -> tuple[Array, ...] | None:
    """The results of ``op``; None when they are large, or when a param is known only at run time."""
    if any(isinstance(param, Value) for param in params.values()) or OPS[op].layout != "any":
        return None
    types = [None if a is None else ArrayType(a.shape, a.dtype) for a in operands]
    results = OPS[op].output_types(types, params)
    for result in results:
        check_budget(f"the result of {op}", tuple(max(size, 0) for size in result.shape), result.dtype)
        if math.prod(result.shape) > FOLD_LIMIT:
            return None
    with np.errstate(all="ignore"):
        computed = OPS[op].forward(Context(params, (False,) * len(operands)), *operands, **params)
    return tuple(np.asarray(a) for a in (computed if isinstance(computed, tuple) else (computed,)))
