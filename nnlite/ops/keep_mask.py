"""The elements that a dropout node of a model file keeps when the file asks for training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from nnlite.errors import OperandError
from nnlite.layout import Array
from nnlite.ops.record import ArrayType, Context, ErrorSample, Op, Sample, register


def keep_mask_shape(
    shape: Sequence[int], p: float, training: bool, seed: int | None
) -> tuple[ArrayType, ...]:
    if not 0 <= p < 1:
        raise OperandError(f"keep_mask: p={p} must be in [0, 1)")
    if training and p and seed is None:
        raise OperandError(
            "keep_mask: dropout in training mode needs a seed; run the model in evaluation mode"
        )
    sizes = tuple(map(int, shape))
    return ArrayType(sizes, np.dtype(np.bool_)), ArrayType(sizes, np.dtype(np.float32))


def keep_mask_forward(
    ctx: Context, shape: Sequence[int], p: float, training: bool, seed: int | None
) -> tuple[Array, Array]:
    if not training or not p:
        return np.ones(shape, np.bool_), np.ones(shape, np.float32)
    # The generator of ONNX's reference implementation, so that a seed means the same numbers.
    kept = np.random.RandomState(seed).uniform(0, 1, tuple(shape)) >= p
    return kept, kept.astype(np.float32) / np.float32(1 - p)


def keep_mask_samples() -> Iterator[Sample]:
    yield Sample(shape=(3, 4), p=0.5, training=True, seed=3, onnx=False)
    yield Sample(shape=(3, 4), p=0.5, training=False, seed=None, onnx=False)


def keep_mask_errors() -> Iterator[ErrorSample]:
    yield ErrorSample(OperandError, "must be in", shape=(2,), p=1.0, training=True, seed=1)
    yield ErrorSample(OperandError, "needs a seed", shape=(2,), p=0.5, training=True, seed=None)


register(
    Op(
        name="keep_mask",
        formula="kept [shape] = true with probability 1 - p, drawn from seed, and scale = kept / (1 - p); "
        "all true and 1 unless training",
        gradient="none: there is no operand",
        source="ONNX Dropout-13 and its reference implementation",
        shape=keep_mask_shape,
        forward=keep_mask_forward,
        backward=None,
        samples=keep_mask_samples,
        errors=keep_mask_errors,
        writes=None,
    )
)
