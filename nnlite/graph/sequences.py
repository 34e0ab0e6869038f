"""Sequences of tensors, and values that may be absent (None), handed from node to node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nnlite import functional as F
from nnlite.errors import DTypeError, ModelError, OperandError, ShapeError
from nnlite.graph.control import Runner, control, max_iterations
from nnlite.layout import Array
from nnlite.memory import max_tensor_bytes
from nnlite.node import Node, Value
from nnlite.ops import ArrayType
from nnlite.tensors import Tensor

SEQUENCE = ArrayType((-1,), np.dtype(object))
"""The type of a sequence, and of a value that may be absent, as far as a graph tells it."""


class TensorSequence:
    """Tensors of one element type, which together stay within the budget of one tensor. Never changed."""

    __slots__ = ("nbytes", "tensors")

    def __init__(self, tensors: Sequence[Tensor] = ()) -> None:
        self.tensors: list[Tensor] = []
        self.nbytes = 0
        for tensor in tensors:
            self._add(len(self.tensors), tensor)

    def __getattr__(self, name: str) -> Any:
        # A file may hand a sequence to any node; what a tensor has and it has not ends here.
        if name in ("shape", "size", "ndim", "dtype", "numpy", "item"):
            raise DTypeError("a tensor is wanted, not a sequence")
        raise AttributeError(name)

    def _add(self, index: int, tensor: Tensor) -> None:
        if self.tensors and tensor.dtype != self.tensors[0].dtype:
            raise DTypeError(
                f"sequence: it holds {self.tensors[0].dtype}, so that {tensor.dtype} does not fit in"
            )
        self.nbytes += tensor.numpy().nbytes
        if self.nbytes > max_tensor_bytes():
            raise ShapeError(
                f"sequence: {len(self.tensors) + 1} tensors of {self.nbytes} bytes are beyond the budget of "
                f"{max_tensor_bytes()} bytes; raise NNLITE_MAX_TENSOR_BYTES if you trust the file"
            )
        self.tensors.insert(index, tensor)

    def _copy(self) -> TensorSequence:
        copy = TensorSequence()
        copy.tensors, copy.nbytes = self.tensors[:], self.nbytes
        return copy

    def inserted(self, index: int, tensor: Tensor) -> TensorSequence:
        """A sequence with one more."""
        result = self._copy()
        result._add(index, tensor)
        return result

    def erased(self, index: int) -> TensorSequence:
        """A sequence with one less."""
        result = self._copy()
        result.nbytes -= result.tensors.pop(index).numpy().nbytes
        return result


def held(value: Value | None, given: Any) -> Any:
    """What a caller gives for an input: an array, or for SEQUENCE a list of arrays or None."""
    if value is None or value.type != SEQUENCE or isinstance(given, np.ndarray):
        return Tensor(_numbers(given))
    return None if given is None else TensorSequence([Tensor(_numbers(array)) for array in given])


def _numbers(given: Any) -> Array:
    array = np.asarray(given)
    if array.dtype.hasobject:
        raise DTypeError("an input holds Python objects where an array of numbers is wanted")
    return array


def handed_out(item: Any) -> Any:
    """What a caller gets: an array, a list of arrays, or None."""
    if isinstance(item, TensorSequence):
        return [tensor.numpy() for tensor in item.tensors]
    return None if item is None else item.numpy()


def _place(index: Tensor | None, size: int, default: int) -> int:
    """A position as a file gives it, negative ones from the end; OperandError outside."""
    if index is None:
        place = default
    elif index.size == 1:
        place = int(index.numpy().reshape(-1)[0])
    else:
        raise ShapeError(f"sequence: the position has shape {list(index.shape)} but must be one number")
    if not -size <= place <= size:
        raise OperandError(f"sequence: position {place} is out of range for {size}")
    return place


def _sequence(value: Any) -> TensorSequence:
    if not isinstance(value, TensorSequence):
        raise DTypeError(f"sequence: a sequence is wanted, not {'nothing' if value is None else 'a tensor'}")
    return value


def _element(given: Any, index: Tensor | None, default: int) -> int:
    """The place of an element that exists."""
    size = len(_sequence(given).tensors)
    place = _place(index, size, default)
    if not -size <= place < size:
        raise OperandError(f"sequence: position {place} is out of range for {size}")
    return place


@control("sequence_construct", "the operands as a sequence", "ONNX SequenceConstruct-11, SequenceEmpty-11")
def construct(node: Node, operands: Sequence[Any], runner: Runner) -> Sequence[Any]:
    """A sequence of any number of tensors."""
    return [TensorSequence(operands)]


@control("sequence_at", "the tensor at a position", "ONNX SequenceAt-11")
def at(node: Node, operands: Sequence[Any], runner: Runner) -> Sequence[Any]:
    """Operands are the sequence and the position."""
    given, index = operands
    return [_sequence(given).tensors[_element(given, index, 0)]]


@control(
    "sequence_insert", "the sequence with a tensor before a position, or at the end", "ONNX SequenceInsert-11"
)
def insert(node: Node, operands: Sequence[Any], runner: Runner) -> Sequence[Any]:
    """Operands are the sequence, the tensor and the position."""
    given, tensor, index = (*operands, None)[:3]
    size = len(_sequence(given).tensors)
    return [given.inserted(_place(index, size, size), tensor)]


@control(
    "sequence_erase", "the sequence without the tensor at a position, or the last", "ONNX SequenceErase-11"
)
def erase(node: Node, operands: Sequence[Any], runner: Runner) -> Sequence[Any]:
    """Operands are the sequence and the position."""
    given, index = (*operands, None)[:2]
    return [given.erased(_element(given, index, -1))]


@control("sequence_length", "how many tensors there are", "ONNX SequenceLength-11")
def length(node: Node, operands: Sequence[Any], runner: Runner) -> Sequence[Any]:
    """A single number."""
    return [Tensor(np.asarray(len(_sequence(operands[0]).tensors)))]


@control("split_to_sequence", "a tensor cut along an axis", "ONNX SplitToSequence-24")
def split(node: Node, operands: Sequence[Any], runner: Runner) -> Sequence[Any]:
    """Operands are the tensor and sizes: a list, one number for all, or none for slices of 1."""
    x, *sizes = operands
    axis = node.params["axis"]
    if not -x.ndim <= axis < x.ndim:
        raise ShapeError(f"split_to_sequence: axis {axis} is not one of {list(x.shape)}")
    given = sizes[0].numpy() if sizes and sizes[0] is not None else np.asarray(1)
    count = given.size if given.ndim else x.shape[axis] // max(int(given), 1)
    if count > max_iterations():
        raise ShapeError(
            f"split_to_sequence: {count} parts are more than {max_iterations()}; if they are meant, raise "
            "NNLITE_MAX_ITERATIONS"
        )
    if given.ndim:
        parts = F.split(x, given.tolist() or [0], axis)
    elif (sizes and sizes[0] is not None) or node.params["keepdims"]:
        parts = F.split(x, int(given), axis)
    else:
        parts = F.unbind(x, axis)
    return [TensorSequence(parts)]


@control("concat_from_sequence", "the tensors side by side, or stacked", "ONNX ConcatFromSequence-11")
def concat(node: Node, operands: Sequence[Any], runner: Runner) -> Sequence[Any]:
    """One tensor; ShapeError where there is none in the sequence."""
    tensors = _sequence(operands[0]).tensors
    if not tensors:
        raise ShapeError("concat_from_sequence: an empty sequence has no tensor to give")
    join = F.stack if node.params["new_axis"] else F.cat
    return [join(tensors, node.params["axis"])]


@control("sequence_map", "body(s[i], …) for every element, as sequences", "ONNX SequenceMap-17")
def map_body(node: Node, operands: Sequence[Any], runner: Runner) -> Sequence[Any]:
    """The first ``given`` operands are sequences of one length, or tensors for all; the rest is captured."""
    given, captured = operands[: node.params["given"]], operands[node.params["given"] :]
    count = len(_sequence(given[0]).tensors)
    if any(isinstance(s, TensorSequence) and len(s.tensors) != count for s in given):
        raise ShapeError("sequence_map: its sequences must be of one length")
    rows = []
    for i in range(count):
        runner.iterate(node)
        inputs = [s.tensors[i] if isinstance(s, TensorSequence) else s for s in given]
        rows.append(runner.body(node.params["body"], [*inputs, *captured]))
    return [TensorSequence([row[k] for row in rows]) for k in range(len(node.params["body"].outputs))]


@control("optional", "the operand, which may be absent", "ONNX Optional-15")
def optional(node: Node, operands: Sequence[Any], runner: Runner) -> Sequence[Any]:
    """The operand, or None."""
    return [operands[0] if operands else None]


@control("has_element", "whether the operand is there", "ONNX OptionalHasElement-18")
def has_element(node: Node, operands: Sequence[Any], runner: Runner) -> Sequence[Any]:
    """A truth value."""
    return [Tensor(np.asarray(bool(operands) and operands[0] is not None))]


@control("get_element", "the operand, which must be there", "ONNX OptionalGetElement-18")
def get_element(node: Node, operands: Sequence[Any], runner: Runner) -> Sequence[Any]:
    """The operand; ModelError where it is absent."""
    if operands[0] is None:
        raise ModelError(f"{node.name}: the optional value is absent")
    return [operands[0]]
