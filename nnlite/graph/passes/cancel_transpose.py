"""Let transpositions meet and cancel: files made from channels-last frameworks are full of them.

    transpose(conv(transpose(relu(transpose(conv(transpose(x, in)), out)), in)), out)
    transpose(conv(relu(conv(transpose(x, in)))), out)

A transposition moves down past whatever works element by element, and past ops whose axes can be renamed
(concat, softmax, reductions, padding, slices), until it meets its inverse or a node that needs the axes as
they were. Only movement of data goes away: the same numbers, but for the order in which a reduction adds.
Where no transposition would go away the graph stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from nnlite.graph.ir import Graph, make_node
from nnlite.node import Node, Value
from nnlite.ops import ArrayType

Axes = tuple[int, ...]


class Moved(NamedTuple):
    """A value said by another one: ``transpose(value, axes)``."""

    value: Value
    axes: Axes


Params = Mapping[str, Any]
Renamed = tuple[dict[str, Any], Axes]
"""The params for the untransposed operands, and the axes by which the result is then transposed."""


def _one_axis(params: Params, axes: Axes) -> Renamed | None:
    return {**params, "axis": axes[params["axis"]]}, axes


def _reduction(params: Params, axes: Axes) -> Renamed | None:
    if params["axes"] is None or params.get("empty_is_all"):
        return None
    renamed = {**params, "axes": tuple(sorted(axes[axis] for axis in params["axes"]))}
    return renamed, axes if params["keepdims"] else _without(axes, params["axes"])


def _squeeze(params: Params, axes: Axes) -> Renamed | None:
    if params["axes"] is None:
        return None
    return {"axes": tuple(sorted(axes[axis] for axis in params["axes"]))}, _without(axes, params["axes"])


def _without(axes: Axes, gone: Sequence[int]) -> Axes:
    """``axes`` of what is left when the axes ``gone`` of the transposed array are."""
    kept = [axis for i, axis in enumerate(axes) if i not in {g % len(axes) for g in gone}]
    return tuple(sorted(kept).index(axis) for axis in kept)


def _pad(params: Params, axes: Axes) -> Renamed | None:
    if params.get("axes") is not None:
        return {**params, "axes": tuple(axes[axis] for axis in params["axes"])}, axes
    rank, pads = len(axes), params["pads"]
    if len(pads) != 2 * rank:
        return None
    renamed = [0] * (2 * rank)
    for i, axis in enumerate(axes):
        renamed[axis], renamed[rank + axis] = pads[i], pads[rank + i]
    return {**params, "pads": tuple(renamed)}, axes


def _slice(params: Params, axes: Axes) -> Renamed | None:
    listed = params.get("axes")
    named = range(len(params["starts"])) if listed is None else listed
    return {**params, "axes": tuple(axes[axis] for axis in named)}, axes


def _same(params: Params, axes: Axes) -> Renamed | None:
    return dict(params), axes


RENAMED: dict[str, Callable[[Params, Axes], Renamed | None]] = {
    "concat": _one_axis, "softmax": _one_axis, "log_softmax": _one_axis, "chunk": _one_axis,
    "mean": _reduction, "sum": _reduction, "max": _reduction, "min": _reduction,
    "squeeze": _squeeze, "pad": _pad, "slice": _slice,
    "identity": _same, "dropout": _same, "clamp": _same, "cast": _same,
}  # fmt: skip
"""Op -> what its params become when its operands are not transposed; None where that cannot be said."""


def cancel_transpose(graph: Graph) -> Graph:
    """``graph`` with as few transpositions as meeting and cancelling leaves."""
    if _transpositions(graph) < 2:
        return graph
    after = _Sinking(graph).graph()
    return after if _transpositions(after) < _transpositions(graph) else graph


def _transpositions(graph: Graph) -> int:
    """How many there are, but for those of constants, which are done once."""
    return sum(n.op.name == "transpose" and n.inputs[0] not in graph.arrays for n in graph.nodes)


class _Sinking:
    """The graph as it is built anew, node by node."""

    def __init__(self, graph: Graph) -> None:
        self._old = graph
        self._nodes: list[Node] = []
        self._moved: dict[Value, Moved] = {}
        """Old values that are known by a transposition of new ones."""
        self._plain: dict[Value, Value] = {value: value for value in (*graph.inputs, *graph.arrays)}
        """Old values as new ones."""

    def graph(self) -> Graph:
        for node in self._old.nodes:
            if not (self._transposed(node) or self._past(node)):
                self._copied(node)
        outputs = [self._named(value) for value in self._old.outputs]
        whole = Graph(self._old.inputs, tuple(outputs), tuple(self._nodes), self._old.arrays)
        return whole.between(whole.inputs, outputs)

    def _named(self, output: Value) -> Value:
        """An output of the graph, under its name."""
        value = self._as_it_was(output)
        if value.name != output.name:
            named = Value(name=output.name, type=output.type)
            self._nodes.append(make_node("identity", [value], {}, [named], output.name))
            return named
        return value

    def _as_it_was(self, value: Value) -> Value:
        """The new value that holds what ``value`` did, its axes in their old order."""
        if value not in self._plain:
            source, axes = self._moved[value]
            result = Value(name=value.name, type=value.type)
            self._nodes.append(make_node("transpose", [source], {"axes": axes}, [result], value.name))
            self._plain[value] = result
        return self._plain[value]

    def _copied(self, node: Node) -> None:
        inputs = [None if value is None else self._as_it_was(value) for value in node.inputs]
        params = {k: self._as_it_was(p) if isinstance(p, Value) else p for k, p in node.params.items()}
        results = [Value(name=value.name, type=value.type) for value in node.outputs]
        self._nodes.append(make_node(node.op, inputs, params, results, node.name))
        self._plain.update(zip(node.outputs, results, strict=True))

    def _transposed(self, node: Node) -> bool:
        """Whether ``node`` is a transposition, which then is remembered instead of done."""
        source = node.inputs[0] if node.inputs else None
        if node.op.name != "transpose" or source is None or isinstance(node.params["axes"], Value):
            return False
        given = node.params["axes"]
        if given is None or source in self._old.arrays:
            return False
        value, axes = self._moved.get(source) or Moved(self._as_it_was(source), tuple(range(len(given))))
        self._remember(node.outputs[0], value, tuple(axes[axis] for axis in given))
        return True

    def _remember(self, old: Value, value: Value, axes: Axes) -> None:
        if axes == tuple(range(len(axes))):
            self._plain[old] = value
        else:
            self._moved[old] = Moved(value, axes)

    def _past(self, node: Node) -> bool:
        """Whether ``node`` could be applied before the transposition of its operands."""
        moved = [self._moved[value] for value in node.inputs if value is not None and value in self._moved]
        if not moved or len(node.outputs) != 1 or len({m.axes for m in moved}) != 1:
            return False
        if any(isinstance(param, Value) for param in node.params.values()):
            return False
        axes = moved[0].axes
        if node.op.elementwise:
            renamed: Renamed | None = (dict(node.params), axes)
        else:
            rule = RENAMED.get(node.op.name)
            renamed = None if rule is None else rule(node.params, axes)
        if renamed is None:
            return False
        inputs = [self._operand(value, axes, node) for value in node.inputs]
        if any(new is None and old is not None for new, old in zip(inputs, node.inputs, strict=True)):
            return False
        params, order = renamed
        old = node.outputs[0]
        result = Value(name=old.name, type=_untransposed(old.type, order))
        self._nodes.append(make_node(node.op, inputs, params, [result], node.name))
        self._remember(old, result, order)
        return True

    def _operand(self, value: Value | None, axes: Axes, node: Node) -> Value | None:
        """What ``node`` reads instead of ``value`` when it comes before the transposition by ``axes``."""
        if value is None:
            return None
        if value in self._moved:
            return self._moved[value].value
        array = self._old.arrays.get(value)
        if array is None or not node.op.elementwise or array.ndim > len(axes):
            return None
        if array.size == 1:
            return value
        shape = (1,) * (len(axes) - array.ndim) + array.shape
        wide = Value(name=f"{node.name}:{value.name}")
        if sum(size > 1 for size in shape) == 1:
            sizes = [1] * len(axes)
            sizes[axes[next(i for i, size in enumerate(shape) if size > 1)]] = -1
            self._nodes.append(make_node("reshape", [value], {"shape": tuple(sizes)}, [wide], node.name))
            return wide
        self._nodes.append(make_node("reshape", [value], {"shape": shape}, [wide], node.name))
        back, inverse = Value(name=wide.name), tuple(axes.index(i) for i in range(len(axes)))
        self._nodes.append(make_node("transpose", [wide], {"axes": inverse}, [back], node.name))
        return back


def _untransposed(known: ArrayType | None, axes: Axes) -> ArrayType | None:
    """The type of what is transposed by ``axes`` to one of type ``known``."""
    if known is None or len(known.shape) != len(axes):
        return None
    return ArrayType(tuple(known.shape[axes.index(i)] for i in range(len(axes))), known.dtype)
