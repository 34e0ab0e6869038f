"""Applying ops, recording them, and going back: reverse-mode differentiation.

``apply`` is the one gate between Tensors and ops: it checks shapes, puts memory into canonical
order, runs the op and, when a gradient will be wanted, records a node on the tape. Gradients are
first order.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from nnlite import device, layout, memory
from nnlite.errors import DeviceError, DTypeError, GradientError, NnliteError
from nnlite.layout import Array, as_array
from nnlite.node import Node, Value
from nnlite.ops.record import ArrayType, Context, Op, Params
from nnlite.ops.runs import add

_ARRAY = np.ndarray
_mode = threading.local()


def grad_enabled() -> bool:
    """True unless inside ``no_grad()``."""
    return bool(getattr(_mode, "enabled", True))


@contextmanager
def set_grad_enabled(enabled: bool) -> Iterator[None]:
    """Within the block, record (or do not record) for differentiation."""
    before = grad_enabled()
    _mode.enabled = enabled
    try:
        yield
    finally:
        _mode.enabled = before


@contextmanager
def byte_budget(limit: int | None) -> Iterator[None]:
    """Within the block no op may compute an array of more than ``limit`` bytes: it raises before it tries."""
    before = getattr(_mode, "budget", None)
    _mode.budget = limit
    try:
        yield
    finally:
        _mode.budget = before


@contextmanager
def watching() -> Iterator[dict[Value, None]]:
    """Within the block every value that an op reads is noted, in order."""
    before = getattr(_mode, "watched", None)
    seen: dict[Value, None] = {}
    _mode.watched = seen
    try:
        yield seen
    finally:
        _mode.watched = before
        if before is not None:
            before.update(seen)


def no_grad() -> Any:
    """A context manager (and decorator) within which nothing is recorded."""
    return set_grad_enabled(False)


class TapeNode(Node):
    """A node that was executed: it also holds what backward needs."""

    __slots__ = ("context", "types", "used")

    def __init__(
        self,
        op: Op,
        inputs: tuple[Value | None, ...],
        params: Mapping[str, Any],
        context: Context,
        types: tuple[ArrayType, ...],
        used: tuple[tuple[Value, int], ...],
    ) -> None:
        super().__init__(op, inputs, params)
        self.context = context
        self.types = types
        self.used = used
        """Every leaf among the operands, frozen ones too, and the version that was used."""


_ORDERS = {"channels_last": layout.channels_last, "C": layout.contiguous}


def _in_order(op: Op, array: Array | None) -> Array | None:
    return array if array is None or op.layout == "any" else _ORDERS[op.layout](array)


def _check_devices(op: Op, arrays: Sequence[Any]) -> None:
    """DeviceError where arrays of NumPy meet those of CuPy; sequences of a model file have no device."""
    if all(device.is_array(array) for array in arrays if array is not None):
        device.check_one_device(op.name, arrays)


def _on_gpu(arrays: Sequence[Any]) -> bool:
    return any(device.is_array(array) and not device.on_host(array) for array in arrays)


def _described(op: Op, arrays: Sequence[Any]) -> str:
    """An op and what it was asked to take."""
    return f"{op.name}({', '.join('None' if a is None else f'{a.dtype}{list(a.shape)}' for a in arrays)})"


def apply(
    op: Op, arrays: Sequence[Array | None], values: Sequence[Value | None], params: Params
) -> tuple[tuple[Array, ...], tuple[Value | None, ...]]:
    """Run ``op``; returns its output arrays and, where a gradient can flow, their values on the tape.

    Raises ShapeError or DTypeError of the op's shape rule, DeviceError for operands on several devices,
    OutOfMemoryError where there is no room for the result.
    """
    for array in arrays:
        if type(array) is not _ARRAY and array is not None:
            _check_devices(op, arrays)
            break
    types = [None if a is None else ArrayType(a.shape, a.dtype) for a in arrays]
    output_types = op.output_types(types, params)
    memory.check_budget(op.name, output_types, getattr(_mode, "budget", None))
    recording = grad_enabled() and op.backward is not None
    needs = tuple([recording and value is not None and value.requires_grad for value in values])
    context = Context(params, needs)
    try:
        operands = tuple([_in_order(op, array) for array in arrays])
        result = op.forward(context, *operands, **params)
    except MemoryError as error:
        raise device.out_of_memory(_described(op, arrays), error) from error
    except (TypeError, NotImplementedError) as error:
        if isinstance(error, NnliteError) or not _on_gpu(arrays):
            raise
        raise DeviceError(
            f"{_described(op, arrays)}: cannot run on a GPU ({error}); move its operands with .to('cpu')"
        ) from error
    outputs = tuple(map(as_array, result)) if isinstance(result, tuple) else (as_array(result),)
    if (watched := getattr(_mode, "watched", None)) is not None:
        watched.update(dict.fromkeys(value for value in values if value is not None))
    if not context.recording:
        return outputs, (None,) * len(outputs)
    _defer(context, operands, values)
    return outputs, record(op, context, values, output_types)


def _defer(context: Context, operands: Sequence[Array | None], values: Sequence[Value | None]) -> None:
    """Do not keep operands that the op which made them can compute again in one pass over what it keeps.

    A batch norm keeps its input and the convolution behind it would keep its output: nearly every activation
    of a network, twice.
    """
    for operand, value in zip(operands, values, strict=True):
        if value is not None and value.index == 0 and isinstance(value.node, TapeNode):
            again = value.node.context.again
            if again is not None and operand is not None:
                context.defer(operand, again)


def record(
    op: Op, context: Context, values: Sequence[Value | None], output_types: Sequence[ArrayType]
) -> tuple[Value | None, ...]:
    """Values on the tape for the outputs of ``op``, which was run with ``context`` on ``values``."""
    inputs = tuple(value if need else None for value, need in zip(values, context.needs, strict=True))
    used = tuple((v, v.version) for v in values if v is not None and v.node is None)
    node = TapeNode(op, inputs, context.params, context, tuple(output_types), used)
    return tuple(
        Value(node, index, type=output_type, requires_grad=True)
        if differentiable(output_type.dtype)
        else None
        for index, output_type in enumerate(output_types)
    )


# ------------------------------------------------------------------------------------- backward


def _topological_order(roots: Sequence[Value]) -> list[TapeNode]:
    """All nodes that ``roots`` depend on, every node after the nodes it depends on. Iterative."""
    order: list[TapeNode] = []
    seen: set[int] = set()
    stack: list[tuple[TapeNode, int]] = []
    for root in roots:
        if isinstance(root.node, TapeNode) and id(root.node) not in seen:
            seen.add(id(root.node))
            stack.append((root.node, 0))
        while stack:
            node, position = stack.pop()
            if position == len(node.inputs):
                order.append(node)
                continue
            stack.append((node, position + 1))
            value = node.inputs[position]
            below = value.node if value is not None else None
            if isinstance(below, TapeNode) and id(below) not in seen:
                seen.add(id(below))
                stack.append((below, 0))
    return order


def _check_alive(node: TapeNode) -> None:
    if node.context.saved is None:
        raise GradientError(
            f"{node.op.name}: the arrays saved for backward are gone; "
            "pass retain_graph=True to the first backward to go back twice"
        )
    for leaf, version in node.used:
        if leaf.version != version:
            which = f" {leaf.type}" if leaf.type is not None else ""
            raise GradientError(
                f"{node.op.name}: a parameter{which} was changed in place after it was used; "
                "call backward before the optimiser's step"
            )


def _node_gradients(
    node: TapeNode, gradients: list[Array | None], needs: tuple[bool, ...]
) -> list[Array | None]:
    """Gradients of ``node``'s inputs from those of its outputs."""
    _check_alive(node)
    ordered = tuple(_in_order(node.op, gradient) for gradient in gradients)
    assert node.op.backward is not None
    kept = node.context.saved
    try:
        node.context.saved = node.context.complete()
        result = node.op.backward(node.context, ordered if len(ordered) > 1 else ordered[0], needs)
    except MemoryError as error:
        raise device.out_of_memory(f"the gradient of {node.op.name}", error) from error
    finally:
        node.context.saved = kept
    if len(result) != len(node.inputs):
        raise AssertionError(f"{node.op.name}.backward returned {len(result)} gradients")
    return list(result)


def _own(gradient: Array, *others: Array | None) -> Array:
    """``gradient``, copied when it may share memory with ``others``: a leaf owns its gradient."""
    for other in others:
        if type(other) is type(gradient) and np.may_share_memory(gradient, other):
            copy: Array = gradient.copy("K")
            return copy
    return gradient


def gradients(
    roots: Sequence[Value],
    seeds: Sequence[Array],
    targets: Sequence[Value] | None,
    retain_graph: bool,
    ready: Callable[[Value, Array], None] | None = None,
) -> dict[Value, Array]:
    """Sum over ``roots`` of seed^T d root / d target, for each target that a root depends on.

    ``targets`` None means every leaf. Nodes that lead to no target are not visited. With ``ready`` a leaf
    and its gradient are handed to it as soon as no node is left that adds to it, and not returned.
    """
    order = _topological_order(roots)
    wanted: set[Value] | None = None if targets is None else set(targets)
    useful: set[int] = set()  # nodes that some target lies below

    def leads_to_target(value: Value | None) -> bool:
        if value is None:
            return False
        if wanted is None:
            return True
        return value in wanted or id(value.node) in useful

    for node in order:
        if any(leads_to_target(value) for value in node.inputs):
            useful.add(id(node))

    result: dict[Value, Array] = {}
    pending: dict[int, list[Array | None]] = {}
    completes = {} if ready is None else _last_readers(order)

    def deliver(value: Value, gradient: Array, *others: Array | None) -> None:
        if (wanted is None and value.node is None) or (wanted is not None and value in wanted):
            known = result.get(value)
            result[value] = _own(gradient, *others) if known is None else add(known, gradient)
        if value.node is not None and id(value.node) in useful:
            assert isinstance(value.node, TapeNode)
            slots = pending.setdefault(id(value.node), [None] * len(value.node.types))
            known = slots[value.index]
            slots[value.index] = gradient if known is None else add(known, gradient)

    def hand_out(leaves: Sequence[Value]) -> None:
        for leaf in leaves:
            if ready is not None and leaf in result:
                ready(leaf, result.pop(leaf))

    for root, seed in zip(roots, seeds, strict=True):
        deliver(root, seed, seed)
    for node in reversed(order):
        arriving = pending.pop(id(node), None)
        if arriving is None:
            hand_out(completes.get(id(node), ()))
            continue
        needs = tuple(leads_to_target(value) for value in node.inputs)
        leaving = _node_gradients(node, arriving, needs)
        if not retain_graph:
            # At once: what the next nodes allocate is then memory that is still in the cache.
            node.context.free()
        for value, need, gradient in zip(node.inputs, needs, leaving, strict=True):
            if value is not None and need and gradient is not None:
                deliver(value, as_array(gradient), *arriving)
        del arriving, leaving, gradient
        hand_out(completes.get(id(node), ()))
    hand_out(list(result) if ready is not None else ())  # a root may be a leaf itself
    if not retain_graph:
        for node in order:  # those that led to no target, too
            node.context.free()
    return result


def _last_readers(order: Sequence[TapeNode]) -> dict[int, list[Value]]:
    """Leaves by the node that backward visits last of all that read them; ``order`` as backward reverses."""
    readers: dict[int, list[Value]] = {}
    seen: set[Value] = set()
    for node in order:
        for value in node.inputs:
            if value is not None and value.node is None and value not in seen:
                seen.add(value)
                readers.setdefault(id(node), []).append(value)
    return readers


def backward(
    roots: Sequence[Value],
    seeds: Sequence[Array],
    retain_graph: bool = False,
    ready: Callable[[Value], None] | None = None,
) -> None:
    """Add the gradient of every leaf below ``roots`` to its ``grad``, then tell ``ready``, at once."""

    def put(leaf: Value, gradient: Array) -> None:
        leaf.grad = gradient if leaf.grad is None else add(leaf.grad, gradient)
        if ready is not None:
            ready(leaf)

    found = gradients(roots, seeds, None, retain_graph, None if ready is None else put)
    for leaf, gradient in found.items():
        put(leaf, gradient)


def differentiable(dtype: np.dtype[Any]) -> bool:
    """Whether numbers of this type carry a gradient; floats of 8 bits are stored, not computed with."""
    return dtype.kind == "f" and dtype.itemsize > 1


def check_differentiable(dtype: np.dtype[Any]) -> None:
    """Raises DTypeError unless ``dtype`` is a floating type."""
    if not differentiable(dtype):
        raise DTypeError(f"only floating-point tensors can require gradients, not {dtype}")
