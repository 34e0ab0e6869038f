"""If, Loop and Scan in a model file, and SequenceMap: nodes that hold graphs.

A graph within a node sees the names around it; what it reads of them becomes further inputs of the node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nnlite.graph import Graph, control_node, make_node, operands
from nnlite.node import Node, Value
from nnlite.onnx.view import NodeView


def _graph(
    formals: Sequence[Value], nodes: Sequence[Node], outputs: Sequence[Value]
) -> tuple[Graph, list[Value]]:
    """The graph of what was read in a node, and what it captures: its inputs behind ``formals``."""
    known = {*formals, *(value for node in nodes for value in node.outputs)}
    reads = [*(value for node in nodes for value in operands(node)), *outputs]
    captured = list(dict.fromkeys(value for value in reads if value not in known))
    return Graph((*formals, *captured), tuple(outputs), tuple(nodes)), captured


def _results(view: NodeView, like: Sequence[Value]) -> list[Value]:
    """New values for what a node computes, of the element types of what its graph computes."""
    results = [Value(name=f"{view.name}:{i}") for i in range(len(like))]
    for inner, outer in zip(like, results, strict=True):
        view.copy_kind(inner, outer)
    return results


def _emit(
    view: NodeView, op: str, inputs: Sequence[Value | None], like: Sequence[Value], **params: Any
) -> list[Value]:
    results = _results(view, like)
    view.add_node(control_node(op, inputs, params, results, view.name))
    return results


# -------------------------------------------------------------------------------------------- If


def read_if(view: NodeView) -> Any:
    """The branch that a known condition picks, else a node that holds both."""
    then_graph, else_graph = view.graph("then_branch"), view.graph("else_branch")
    condition = view.constant(0)
    if condition is not None:
        if condition.size != 1:
            raise view.refuse(f"malformed: the condition has shape {list(condition.shape)}")
        _, nodes, outputs = view.read_graph(then_graph if condition.item() else else_graph)
        for node in nodes:
            view.add_node(node)
        return tuple(outputs)
    branches = [_graph(*view.read_graph(graph)) for graph in (then_graph, else_graph)]
    if len(branches[0][0].outputs) != len(branches[1][0].outputs):
        raise view.refuse("malformed: its branches have different numbers of outputs")
    captured = list(dict.fromkeys(value for _, values in branches for value in values))
    both = [Graph(tuple(captured), graph.outputs, graph.nodes) for graph, _ in branches]
    inputs = [view.inputs[0], *captured]
    return tuple(_emit(view, "branch", inputs, both[0].outputs, then_branch=both[0], else_branch=both[1]))


# ---------------------------------------------------------------------------------- Loop and Scan


def read_loop(view: NodeView) -> Any:
    """A body with the number of the iteration, the condition and what is carried on."""
    limit, condition, initial = view.inputs[0], view.inputs[1], list(view.inputs[2:])
    formals, nodes, outputs = view.read_graph(view.graph("body"), [None, None, *initial])
    if len(formals) != 2 + len(initial) or len(outputs) < 1 + len(initial):
        raise view.refuse(
            f"malformed: its body has {len(formals)} inputs and {len(outputs)} outputs, with {len(initial)} "
            "carried values"
        )
    body, captured = _graph(formals, nodes, outputs)
    stacking = ((0, False),) * (len(outputs) - 1 - len(initial))
    inputs = [limit, condition, *initial, *captured]
    return tuple(_emit(view, "loop", inputs, outputs[1:], body=body, carried=len(initial), stacking=stacking,
                       conditional=not _goes_on(view, formals[1], outputs[0])))  # fmt: skip


def _goes_on(view: NodeView, given: Value, result: Value) -> bool:
    """Whether the body hands its condition on as it is, or says yes every time."""
    while result is not given and result.node is not None and result.node.op.name == "identity":
        (below,) = result.node.inputs
        assert below is not None
        result = below
    known = view.array(result)
    return result is given or (known is not None and bool(known.all()))


def read_scan(view: NodeView) -> Any:
    """A loop over slices: the body's nodes, behind those that take the slices of one iteration."""
    count = view.attribute("num_scan_inputs")
    batched = view.version < 9
    given = list(view.inputs[1:] if batched else view.inputs)
    if batched and view.inputs[0] is not None:
        raise view.refuse("sequence_lens is not supported")
    if not 1 <= count <= len(given) or None in given:
        raise view.refuse(f"malformed: num_scan_inputs={count} of {len(given)} inputs")
    initial, scanned = given[:-count], [value for value in given[-count:] if value is not None]
    formals, nodes, outputs = view.read_graph(view.graph("body"), given)
    stacked = len(outputs) - len(initial)
    if len(formals) != len(given) or stacked < 0:
        raise view.refuse(f"malformed: its body has {len(formals)} inputs and {len(outputs)} outputs")
    flips = _listed(view, "directions" if batched else "scan_input_directions", count)
    axes = _listed(view, "scan_input_axes", count)
    out_flips = _listed(view, "scan_output_directions", stacked)
    out_axes = _listed(view, "scan_output_axes", stacked)
    stacking = tuple((axis, bool(flip)) for axis, flip in zip(out_axes, out_flips, strict=True))
    slices = formals[len(initial) :]
    if not batched:
        body = _scan_body(view, formals[: len(initial)], scanned, slices, axes, flips, nodes, outputs)
        return _loop(view, scanned, axes, initial, *body, stacking=stacking)
    # Until operator set 8 the first axis counts sequences: a loop over them, of which each is a scan.
    rows = [Value(name=f"{view.name}:row_{i}") for i in range(len(given))]
    body = _scan_body(
        view, formals[: len(initial)], rows[len(initial) :], slices, axes, flips, nodes, outputs
    )
    before = len(view.made)
    results = _loop(view, rows[len(initial) :], axes, rows[: len(initial)], *body, stacking=stacking)
    inner, view.made = view.made[before:], view.made[:before]
    whole = [value for value in given if value is not None]
    zeros = [0] * len(whole)
    outer = _scan_body(view, [], whole, rows, zeros, zeros, inner, list(results))
    return _loop(view, whole, zeros, [], *outer, stacking=((0, False),) * len(results))


def _listed(view: NodeView, name: str, count: int) -> list[int]:
    given = view.attribute(name) or (0,) * count
    if len(given) != count:
        raise view.refuse(f"malformed: {name} lists {len(given)} but must list {count}")
    return list(given)


def _scan_body(
    view: NodeView, states: Sequence[Value], scanned: Sequence[Value], slices: Sequence[Value],
    axes: Sequence[int], flips: Sequence[int], nodes: Sequence[Node], outputs: Sequence[Value],
) -> tuple[Graph, list[Value]]:  # fmt: skip
    """A loop's body that takes ``slices`` of ``scanned`` and goes on for ever."""
    i, condition = Value(name=f"{view.name}:i"), Value(name=f"{view.name}:going")
    backwards, last = Value(name=f"{view.name}:from_the_end"), view.leaf(np.asarray(-1))
    taken = [make_node("sub", [last, i], {}, [backwards], view.name)] if any(flips) else []
    for x, piece, axis, flip in zip(scanned, slices, axes, flips, strict=True):
        at = backwards if flip else i
        taken.append(make_node("gather", [x, at], {"axis": axis}, [piece], view.name))
    return _graph([i, condition, *states], [*taken, *nodes], [condition, *outputs])


def _loop(
    view: NodeView, scanned: Sequence[Value], axes: Sequence[int], initial: Sequence[Value | None],
    body: Graph, captured: Sequence[Value], stacking: Any,
) -> tuple[Value, ...]:  # fmt: skip
    length = Value(name=f"{view.name}:length")
    view.add_node(control_node("scan_length", scanned, {"axes": tuple(axes)}, [length], view.name))
    inputs, like = [length, None, *initial, *captured], body.outputs[1:]
    return tuple(_emit(view, "loop", inputs, like, body=body, carried=len(initial), stacking=stacking,
                       conditional=False))  # fmt: skip


def read_sequence_map(view: NodeView) -> Any:
    """A body that is run on every element."""
    formals, nodes, outputs = view.read_graph(view.graph("body"))
    if len(formals) != len(view.inputs):
        raise view.refuse(f"malformed: its body has {len(formals)} inputs but is given {len(view.inputs)}")
    body, captured = _graph(formals, nodes, outputs)
    return tuple(
        _emit(view, "sequence_map", [*view.inputs, *captured], outputs, body=body, given=len(formals))
    )


# -------------------------------------------------------------------- sequences and optional values


def _plain(op: str) -> Callable[[NodeView], Any]:
    def read(view: NodeView) -> Any:
        for name in ("type", "dtype"):  # of what is not there
            view.look_at(name)
        return _emit(view, op, view.inputs, [Value()])[0]

    return read


def read_split_to_sequence(view: NodeView) -> Any:
    """Slices, or parts of given sizes."""
    axis, keepdims = view.attribute("axis", 0), bool(view.attribute("keepdims", 1))
    return _emit(view, "split_to_sequence", view.inputs, [Value()], axis=axis, keepdims=keepdims)[0]


def read_concat_from_sequence(view: NodeView) -> Any:
    """One tensor of many."""
    axis, new_axis = view.attribute("axis"), bool(view.attribute("new_axis", 0))
    return _emit(view, "concat_from_sequence", view.inputs, [Value()], axis=axis, new_axis=new_axis)[0]


READERS: dict[str, Callable[[NodeView], Any]] = {
    "If": read_if,
    "Loop": read_loop,
    "Scan": read_scan,
    "SequenceMap": read_sequence_map,
    "SequenceConstruct": _plain("sequence_construct"),
    "SequenceEmpty": _plain("sequence_construct"),
    "SequenceAt": _plain("sequence_at"),
    "SequenceInsert": _plain("sequence_insert"),
    "SequenceErase": _plain("sequence_erase"),
    "SequenceLength": _plain("sequence_length"),
    "SplitToSequence": read_split_to_sequence,
    "ConcatFromSequence": read_concat_from_sequence,
    "Optional": _plain("optional"),
    "OptionalHasElement": _plain("has_element"),
    "OptionalGetElement": _plain("get_element"),
}
