"""Recurrent networks over whole sequences: rnn, gru, lstm, in one direction or in both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nnlite.errors import DTypeError, OperandError, ShapeError
from nnlite.layout import Array
from nnlite.node import Node
from nnlite.ops import cells
from nnlite.ops.cells import Cell, States, Weights
from nnlite.ops.gates import GATES, Clipped, Named, check_gates, gates_with_numbers
from nnlite.ops.record import (
    ArrayType,
    Context,
    ErrorSample,
    Needs,
    OnnxNode,
    OnnxWriter,
    Op,
    Sample,
    register,
)

DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
"""For each direction of a network: does it go backwards?"""


# ----------------------------------------------------------------------------------- shape rule


def _rule(op: str, cell: Cell) -> Any:
    def rule(
        x: ArrayType, w: ArrayType, r: ArrayType, b: ArrayType | None, lengths: ArrayType | None,
        *states: ArrayType | None, direction: str, activations: Sequence[Named], clip: float | None,
        **params: Any,
    ) -> tuple[ArrayType, ...]:  # fmt: skip
        if direction not in DIRECTIONS:
            raise OperandError(f"{op}: direction={direction!r} must be one of {', '.join(DIRECTIONS)}")
        if clip is not None and not clip > 0:
            raise OperandError(f"{op}: clip={clip} must be above 0")
        if len(x.shape) != 3 or len(r.shape) != 3:
            raise ShapeError(f"{op}: x {list(x.shape)} and r {list(r.shape)} must have three axes")
        count = len(DIRECTIONS[direction])
        check_gates(op, activations, count * len(cell.defaults))
        (steps, batch, width), hidden = x.shape, r.shape[2]
        rows, state = cell.gates * hidden, (count, batch, hidden)
        wanted = [
            ("w", w, (count, rows, width)),
            ("r", r, (count, rows, hidden)),
            ("b", b, (count, 2 * rows)),
        ]
        wanted += [(f"initial_{'hc'[i]}", s, state) for i, s in enumerate(states[: cell.states])]
        wanted += [("p", s, (count, 3 * hidden)) for s in states[cell.states :]]
        for name, given, shape in wanted:
            if given is not None and given.shape != shape:
                raise ShapeError(
                    f"{op}: {name} has shape {list(given.shape)} but must be {list(shape)} for x "
                    f"{list(x.shape)}, hidden size {hidden} and direction {direction!r}"
                )
        if lengths is not None and (lengths.shape != (batch,) or lengths.dtype.kind not in "iu"):
            raise ShapeError(f"{op}: sequence_lens is {lengths} but must be {batch} integers")
        dtypes = {t.dtype for t in (x, w, r, b, *states) if t is not None}
        if len(dtypes) != 1 or x.dtype.kind != "f":
            listed = ", ".join(sorted(map(str, dtypes)))
            raise DTypeError(f"{op}: operands are {listed} but must be of one floating type")
        last = [ArrayType(state, x.dtype)] * cell.states
        return (ArrayType((steps, count, batch, hidden), x.dtype), *last)

    return rule


# ------------------------------------------------------------------------------ forward, backward


def _activations(cell: Cell, params: Any, direction: int) -> list[Clipped]:
    count = len(cell.defaults)
    named = params["activations"][direction * count : (direction + 1) * count]
    # As in ONNX Runtime, clip bounds the sums that go into the gates, not LSTM's cell on its way out.
    return [Clipped(item, params["clip"] if i < 2 else None) for i, item in enumerate(named)]


def _weights(r: Array, b: Array | None, extra: Sequence[Array | None], d: int) -> Weights:
    rows = r.shape[1]
    bias = np.zeros(rows, r.dtype, like=r) if b is None else b[d, rows:]
    p = extra[0] if extra else None
    return Weights(r[d], bias, None if p is None else p[d])


def _forward(op: str, cell: Cell) -> Any:
    def through_time(
        ctx: Context, x: Array, w: Array, r: Array, b: Array | None, lengths: Array | None,
        *rest: Array | None, **params: Any,
    ) -> tuple[Array, ...]:  # fmt: skip
        steps, batch, _ = x.shape
        if lengths is not None and lengths.size and not 0 <= lengths.min() <= lengths.max() <= steps:
            raise OperandError(f"{op}: sequence_lens {lengths.tolist()} must be between 0 and {steps}")
        ways, hidden, rows = DIRECTIONS[params["direction"]], r.shape[2], r.shape[1]
        y = np.zeros((steps, len(ways), batch, hidden), x.dtype, like=x)
        last = tuple(np.empty((len(ways), batch, hidden), x.dtype, like=x) for _ in range(cell.states))
        running = _running(lengths, steps)
        tapes: list[list[tuple[Array, States, States]]] = []
        for d, backwards in enumerate(ways):
            given = x @ w[d].T
            if b is not None:
                given += b[d, :rows]
            weights = _weights(r, b, rest[cell.states :], d)
            functions = _activations(cell, params, d)
            states: States = tuple(
                np.zeros((batch, hidden), x.dtype, like=x) if s is None else s[d] for s in rest[: cell.states]
            )
            tape: list[tuple[Array, States, States]] = []
            for t in range(steps)[:: -1 if backwards else 1]:
                pre, after = cell.forward(given[t], states, weights, functions, params)
                if ctx.recording:
                    tape.append((pre, states, after))
                y[t, d] = after[0] if running is None else np.where(running[t], after[0], 0)
                states = after if running is None else _chosen(running[t], after, states)
            for into, state in zip(last, states, strict=True):
                into[d] = state
            tapes.append(tape)
        ctx.save(x, w, r, b, lengths, *rest)
        ctx.values["tapes"] = tapes
        return (y, *last)

    return through_time


def _running(lengths: Array | None, steps: int) -> Array | None:
    """[L,N,1]: whether a sequence has such a step. What goes backwards waits for its last one."""
    return None if lengths is None else (np.arange(steps, like=lengths)[:, None] < lengths)[..., None]


def _chosen(running: Array, after: States, before: States) -> States:
    return tuple(np.where(running, a, b) for a, b in zip(after, before, strict=True))


def _backward(op: str, cell: Cell) -> Any:
    def back_through_time(ctx: Context, gys: Any, needs: Needs) -> Sequence[Array | None]:
        assert ctx.saved is not None
        x, w, r, b, lengths, *rest = ctx.saved
        assert x is not None and w is not None and r is not None
        rows, params = r.shape[1], ctx.params
        gradients = [
            np.zeros_like(operand) if need and operand is not None else None
            for operand, need in zip(ctx.saved, needs, strict=True)
        ]
        gx, gwi, gr, gb, _, *grest = gradients
        running = _running(lengths, x.shape[0])
        for d, backwards in enumerate(DIRECTIONS[params["direction"]]):
            weights = _weights(r, b, rest[cell.states :], d)
            p = weights.peephole
            found = Weights(
                np.zeros_like(weights.r), np.zeros_like(weights.bias), None if p is None else np.zeros_like(p)
            )
            functions = _activations(cell, params, d)
            gstates = tuple(
                np.zeros(x.shape[1:2] + r.shape[2:], x.dtype, like=x) if g is None else g[d] for g in gys[1:]
            )
            ggiven = np.empty((*x.shape[:2], rows), x.dtype, like=x)
            order = range(x.shape[0])[:: -1 if backwards else 1]
            for t, (pre, before, after) in zip(
                reversed(order), reversed(ctx.values["tapes"][d]), strict=True
            ):
                arriving = gstates
                if gys[0] is not None:
                    arriving = (gstates[0] + gys[0][t, d], *gstates[1:])
                if running is not None:  # a sequence that has ended hands its state on
                    arriving = tuple(np.where(running[t], g, 0) for g in arriving)
                ggiven[t], gbefore = cell.backward(
                    pre, before, after, arriving, weights, found, functions, params
                )
                gstates = gbefore if running is None else _chosen(running[t], gbefore, gstates)
            if gx is not None:
                gx += ggiven @ w[d]
            if gwi is not None:
                gwi[d] = np.tensordot(ggiven, x, ((0, 1), (0, 1)))
            if gr is not None:
                gr[d] = found.r
            if gb is not None:
                gb[d] = np.concatenate([ggiven.sum((0, 1)), found.bias])
            for into, gradient in zip(grest, (*gstates, found.peephole), strict=False):
                if into is not None and gradient is not None:
                    into[d] = gradient
        return gradients

    return back_through_time


# -------------------------------------------------------------------------------------- samples


def _plain(cell: Cell, directions: int = 1, **more: Any) -> dict[str, Any]:
    """Params with the default activations."""
    named = gates_with_numbers(cell.defaults * directions, (), ())
    return (
        dict(direction="bidirectional" if directions == 2 else "forward", activations=named, clip=None) | more
    )


def _operands(cell: Cell, directions: int = 1, bias: bool = True, lengths: Any = None, states: bool = True,
              peephole: bool = False) -> list[Any]:  # fmt: skip
    """Three steps, two sequences, three inputs, two hidden units."""
    rows, d = cell.gates * 2, directions
    listed: list[Any] = [(3, 2, 3), (d, rows, 3), (d, rows, 2), (d, 2 * rows) if bias else None, lengths]
    listed += [(d, 2, 2) if states else None] * cell.states
    return [*listed, (d, 6) if peephole else None] if cell is cells.LSTM else listed


def _samples(cell: Cell, *variants: dict[str, Any]) -> Iterator[Sample]:
    lengths = np.array([1, 3])
    yield Sample(*_operands(cell, bias=False, states=False), **_plain(cell, **variants[0]))
    for params in variants:
        yield Sample(*_operands(cell, 2, lengths=lengths), **_plain(cell, 2, **params))
    plain = _plain(cell, **variants[0])
    yield Sample(*_operands(cell, lengths=lengths[::-1]), **plain | dict(clip=0.8, direction="reverse"))
    for names, alphas, betas in (
        (("LeakyRelu", "ScaledTanh", "Softsign"), (0.3, 1.5), (0.7,)),
        (("Affine", "Elu", "Softplus"), (0.3, 0.9), (0.4,)),
        (("HardSigmoid", "Relu", "ThresholdedRelu"), (0.2, 0.1), ()),
    ):
        named = gates_with_numbers(names[: len(cell.defaults)], alphas, betas)
        yield Sample(*_operands(cell), **plain | dict(direction="reverse", activations=named))


def _errors(cell: Cell, **more: Any) -> Iterator[ErrorSample]:
    good, plain = _operands(cell), _plain(cell, **more)

    def error(kind: Any, match: str, index: int, operand: Any, **params: Any) -> ErrorSample:
        listed = [*good[:index], operand, *good[index + 1 :]]
        return ErrorSample(kind, match, *listed, **plain | params)

    yield error(ShapeError, "three axes", 0, (3, 3))
    yield error(ShapeError, "w has shape", 1, (1, cell.gates * 2, 4))
    yield error(ShapeError, "b has shape", 3, (1, cell.gates * 2))
    yield error(ShapeError, "initial_h has shape", 5, (1, 2, 3))
    yield error(ShapeError, "sequence_lens is", 4, np.array([1, 2, 3]))
    yield error(OperandError, "between 0 and 3", 4, np.array([1, 4]))
    yield error(DTypeError, "one floating type", 0, np.ones((3, 2, 3), int))
    yield error(OperandError, "direction='up'", 4, None, direction="up")
    yield error(OperandError, "clip=0", 4, None, clip=0)
    yield error(OperandError, "activations", 4, None, activations=(("Sine", 0.0, 0.0),) * len(cell.defaults))
    if cell is cells.LSTM:
        yield error(ShapeError, "p has shape", 7, (1, 8))


# ----------------------------------------------------------------------------------------- ONNX


def _read(op: str, cell: Cell, flag: str | None) -> Any:
    def read(n: OnnxNode) -> Any:
        n.attribute("output_sequence")  # until operator set 6: whether the first output is wanted
        operands = [*n.inputs, *[None] * (8 - len(n.inputs))][: 8 if cell is cells.LSTM else 6]
        hidden, r = n.attribute("hidden_size"), n.known(operands[2])
        if hidden is not None and r is not None and r.shape[-1:] != (hidden,):
            raise n.refuse(f"malformed: hidden_size={hidden} but R has shape {list(r.shape)}")
        direction = n.attribute("direction", "forward")
        names = n.attribute("activations") or cell.defaults * len(DIRECTIONS.get(direction, ()))
        numbers = (n.attribute(name) or () for name in ("activation_alpha", "activation_beta"))
        params: dict[str, Any] = dict(direction=direction, clip=n.attribute("clip") or None)
        params["activations"] = gates_with_numbers(names, *numbers)
        if flag is not None:
            params[flag] = bool(n.attribute(flag, 0))
        if not n.attribute("layout", 0):
            return n.emit(op, *operands, outputs=1 + cell.states, **params)
        for i in (0, *range(5, 5 + cell.states)):
            if operands[i] is not None:
                operands[i] = n.emit("transpose", operands[i], axes=(1, 0, 2))
        y, *last = n.emit(op, *operands, outputs=1 + cell.states, **params)
        return n.emit("transpose", y, axes=(2, 0, 1, 3)), *(
            n.emit("transpose", state, axes=(1, 0, 2)) for state in last
        )

    return read


def _write(op_type: str, cell: Cell, flag: str | None) -> Any:
    def write(w: OnnxWriter, node: Node) -> Any:
        params = node.params
        named: Sequence[Named] = params["activations"]
        numbers = [
            [item[1 + i] for item in named if len(GATES[item[0]].defaults) > i] or None for i in range(2)
        ]
        r = node.inputs[2]
        assert r is not None and r.type is not None
        lengths = node.inputs[4]
        inputs: list[Any] = list(node.inputs)
        if lengths is not None:
            inputs[4] = w.add("Cast", [lengths], to=6)
        more = {} if flag is None else {flag: int(params[flag])}
        return w.add_many(
            op_type, inputs, 1 + cell.states, hidden_size=r.type.shape[2], direction=params["direction"],
            activations=[item[0] for item in named], activation_alpha=numbers[0], activation_beta=numbers[1],
            clip=params["clip"], **more,
        )  # fmt: skip

    return write


def _register(name: str, onnx: str, cell: Cell, formula: str, source: str, flag: str | None = None) -> None:
    variants = [{}] if flag is None else [{flag: False}, {flag: True}]

    def samples() -> Iterator[Sample]:
        yield from _samples(cell, *variants)
        if cell is cells.LSTM:
            for params in variants:
                yield Sample(*_operands(cell, 2, peephole=True), **_plain(cell, 2, **params))

    states = "initial_h" if cell.states == 1 else "initial_h, initial_c, p"
    register(
        Op(
            name=name,
            formula=f"{formula};  operands x [L,N,I], w [D,G·H,I], r [D,G·H,H], b [D,2G·H], "
            f"sequence_lens [N], {states}; "
            "y [L,D,N,H], 0 behind the end of a sequence, and the last states [D,N,H]",
            gradient="back through time, step by step; the gates are computed anew from their saved sums",
            source=source,
            layout="C",
            kernels=("conv2d_forward", "conv2d_grad_input", "conv2d_grad_weight"),
            shape=_rule(name, cell),
            forward=_forward(name, cell),
            backward=_backward(name, cell),
            samples=samples,
            errors=lambda: _errors(cell, **variants[0]),
            reads={onnx: _read(name, cell, flag)},
            writes=_write(onnx, cell, flag),
            macs=lambda x, w, r, *rest, **params: (
                int(np.prod(x.shape[:2])) * int(np.prod(w.shape) + np.prod(r.shape))
            ),
        )
    )


_register("rnn", "RNN", cells.RNN, "h_t = f(W x_t + R h_{t-1} + b)", "ONNX RNN-22; Elman 1990")
_register(
    "gru", "GRU", cells.GRU,
    "z, r = f(W x_t + R h_{t-1} + b), n = g(W x_t + R (r · h_{t-1}) + b) (with linear_before_reset "
    "r · (R h_{t-1} + b)), h_t = (1 - z) n + z h_{t-1}; gates in the order z, r, n",
    "ONNX GRU-22; Cho et al. 2014, arXiv:1406.1078", "linear_before_reset",
)  # fmt: skip
_register(
    "lstm", "LSTM", cells.LSTM,
    "i, o, f = f(W x_t + R h_{t-1} + p · c + b), g = g(W x_t + R h_{t-1} + b), c_t = f c_{t-1} + i g, "
    "h_t = o h(c_t); the output gate's peephole sees c_t; gates in the order i, o, f, g; "
    "with input_forget f = 1 - i; clip bounds what goes into f and g",
    "ONNX LSTM-22; Hochreiter and Schmidhuber 1997; Gers and Schmidhuber 2000 (peepholes)", "input_forget",
)  # fmt: skip
