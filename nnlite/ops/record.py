"""The op record: everything there is to know about one operation, in one place.

A record holds the mathematics as text, the shape rule, forward and backward, the mapping to and from
ONNX, test samples and error samples. Tests, documentation and the ONNX coverage table follow from
the registry, so adding an op edits one file. A record that is not complete does not register.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from nnlite.errors import NnliteError
from nnlite.layout import Array
from nnlite.node import Node, Value

Params = Mapping[str, Any]
Needs = tuple[bool, ...]
"""For each input: is its gradient wanted?"""


class ArrayType(NamedTuple):
    """Shape and element type of an array, without the array. A size of -1 depends on data."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


class Context:
    """What forward leaves for backward: arrays, freed after use, and plain values."""

    __slots__ = ("again", "deferred", "needs", "params", "saved", "values")

    def __init__(self, params: Params, needs: Needs) -> None:
        self.params = params
        self.needs = needs
        self.saved: tuple[Array | None, ...] | None = ()
        self.values: dict[str, Any] = {}
        self.again: Callable[[], Array] | None = None
        """Set by an op whose first output is one cheap pass over what it saves: it computes that output
        again, to the bit, so that the ops that read it need not keep it."""
        self.deferred: list[tuple[list[int], weakref.ref[Array], Callable[[], Array]]] = []
        """Places in ``saved`` whose array is not kept; the array, while somebody holds it; how it is made."""

    @property
    def recording(self) -> bool:
        """True when some input's gradient will be wanted, so that saving makes sense."""
        return any(self.needs)

    def save(self, *arrays: Array | None) -> None:
        """Keep ``arrays`` until backward; does nothing when no gradient is wanted."""
        if self.recording:
            self.saved = arrays

    def defer(self, array: Array, again: Callable[[], Array]) -> None:
        """Do not keep ``array`` where it is saved: backward asks ``again`` for it, unless it still lives."""
        if self.saved and any(kept is array for kept in self.saved):
            places = [place for place, kept in enumerate(self.saved) if kept is array]
            self.saved = tuple([None if kept is array else kept for kept in self.saved])
            self.deferred.append((places, weakref.ref(array), again))

    def complete(self) -> tuple[Array | None, ...] | None:
        """What is saved, with what was deferred."""
        if self.saved is None or not self.deferred:
            return self.saved
        found = list(self.saved)
        for places, held, again in self.deferred:
            array = held()
            if array is None:
                array = again()
            for place in places:
                found[place] = array
        return tuple(found)

    def free(self) -> None:
        """Let go of everything: backward is over."""
        self.saved, self.again, self.deferred = None, None, []


# ------------------------------------------------------------------------------------- samples


class Sample:
    """Operands and params to test an op with. A tuple of integers stands for random normal numbers."""

    def __init__(self, *inputs: Any, gradcheck: bool = True, onnx: bool = True, **params: Any) -> None:
        self.inputs = inputs
        self.params = params
        self.gradcheck = gradcheck
        self.onnx = onnx
        """False where this sample says something that ONNX cannot."""

    def arrays(self, seed: int = 0, dtype: Any = np.float64) -> list[Array | None]:
        """The operands, random ones drawn anew from ``seed``."""
        rng = np.random.default_rng(seed)
        arrays: list[Array | None] = []
        for item in self.inputs:
            if item is None:
                arrays.append(None)
            elif isinstance(item, tuple):
                arrays.append(rng.standard_normal(item).astype(dtype))
            else:
                array = np.asarray(item)
                arrays.append(array.astype(dtype) if array.dtype.kind == "f" else array)
        return arrays

    def __repr__(self) -> str:
        inputs = [list(a.shape) if isinstance(a, np.ndarray) else a for a in self.inputs]
        return f"Sample({', '.join(map(str, inputs))}, {self.params})"


class ErrorSample:
    """Operands and params that must be refused, and a part of the message that says so."""

    def __init__(self, error: type[NnliteError], match: str, *inputs: Any, **params: Any) -> None:
        self.error = error
        self.match = match
        self.sample = Sample(*inputs, **params)

    def __repr__(self) -> str:
        return f"ErrorSample({self.match!r})"


# ----------------------------------------------------------------------------------------- ONNX


class OnnxNode(Protocol):
    """What an op's reader sees of a node of a model file. ``inputs`` are IR values; None is absent."""

    op_type: str
    version: int
    """The operator set version that the model declares."""
    inputs: tuple[Value | None, ...]
    outputs: int
    """How many outputs the file names."""

    def attribute(self, name: str, default: Any = None) -> Any:
        """The attribute's Python value, or ``default``."""

    def constant(self, index: int) -> Array | None:
        """The array behind input ``index`` when it is known at load time, else None."""

    def host(self, index: int, default: Any = None) -> Any:
        """Input ``index`` as a param: a tuple or scalar when known, else the Value to read at run time."""

    def known(self, value: Value | None) -> ArrayType | None:
        """Shape and type of ``value`` where the graph determines them at load time."""

    def scalar(self, index: int, default: Any = None) -> Any:
        """Like :meth:`host`, for an input that holds one number in whatever shape."""

    def rank(self, index: int) -> int | None:
        """The number of axes of input ``index``, where the file tells it."""

    def kind(self, index: int) -> int | None:
        """ONNX's code of the element type of input ``index`` (``TensorProto.FLOAT``), where known."""

    def emit(self, op: str, *inputs: Value | None, outputs: int = 1, **params: Any) -> Any:
        """Add an IR node; returns its Value, or a tuple of Values when it has several ``outputs``."""

    def leaf(self, array: Array) -> Value:
        """A constant."""

    def refuse(self, reason: str) -> NnliteError:
        """The error that says why this node is not supported; raise it."""


class OnnxWriter(Protocol):
    """What an op's writer sees of the file being written."""

    version: int

    def add(self, op_type: str, inputs: Sequence[Value | Array | str | None], **attributes: Any) -> str:
        """Add a node with one output; returns the output's name. Arrays become initializers."""

    def add_many(
        self, op_type: str, inputs: Sequence[Value | Array | str | None], outputs: int, **attributes: Any
    ) -> list[str]:
        """Add a node with several outputs; returns their names."""

    def host(self, value: Any, dtype: Any = np.int64) -> Value | Array:
        """A param that ONNX takes as an input: an array, or the Value that holds it."""


Reader = Callable[[OnnxNode], Any]
Writer = Callable[[OnnxWriter, Node], Any]


# --------------------------------------------------------------------------------------- record


@dataclass(frozen=True, eq=False)
class Op:
    """One operation. Ops see arrays, never Tensors.

    ``shape(*types, **params)`` checks everything and returns the types of the outputs;
    ``forward(ctx, *arrays, **params)`` computes; ``backward(ctx, gy, needs)`` returns one gradient per
    input, None where ``needs`` is False (for several outputs ``gy`` is a tuple, None for outputs
    that nobody used).
    """

    name: str
    formula: str
    """What it computes, with shapes."""
    gradient: str
    """What backward computes; for an op without gradient, why there is none."""
    shape: Callable[..., ArrayType | tuple[ArrayType, ...]]
    forward: Callable[..., Array | tuple[Array, ...]]
    backward: Callable[[Context, Any, Needs], Sequence[Array | None]] | None
    samples: Callable[[], Iterable[Sample]]
    errors: Callable[[], Iterable[ErrorSample]]
    writes: Writer | None
    """Serialises a node of this op; None for an op that is never part of an exported model."""
    reads: Mapping[str, Reader] = field(default_factory=dict)
    """ONNX operator -> reader. An operator belongs to one record."""
    source: str = ""
    """Paper or ONNX operator version that the definition follows."""
    layout: Literal["any", "channels_last", "C"] = "any"
    """Memory order that forward and backward expect of every array operand."""
    kernels: tuple[str, ...] = ()
    """Kernel specs that forward and backward launch."""
    elementwise: bool = False
    """Whether each element of y depends on those elements of the operands that broadcast to its place."""
    macs: Callable[..., int] | None = None
    """Multiply-accumulates of one application, from the same arguments as ``shape``; None: none."""

    def output_types(self, types: Sequence[ArrayType | None], params: Params) -> tuple[ArrayType, ...]:
        """Types of the outputs; raises what the shape rule raises."""
        result = self.shape(*types, **params)
        return (result,) if isinstance(result, ArrayType) else result


OPS: dict[str, Op] = {}
READERS: dict[str, tuple[Op, Reader]] = {}


def register(op: Op) -> Op:
    """Enter a complete record into the registry; an incomplete one is an error of the programmer."""
    missing = [part for part in ("name", "formula", "gradient") if not getattr(op, part)]
    if missing:
        raise ValueError(f"op {op.name!r} lacks {', '.join(missing)}")
    if op.name in OPS:
        raise ValueError(f"op {op.name!r} is registered twice")
    for op_type in op.reads:
        if op_type in READERS:
            raise ValueError(f"ONNX operator {op_type} is read by {READERS[op_type][0].name} already")
    OPS[op.name] = op
    READERS.update({op_type: (op, reader) for op_type, reader in op.reads.items()})
    return op
