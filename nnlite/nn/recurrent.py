"""Recurrent layers: RNN, LSTM, GRU with PyTorch's names and order of gates, on the ops of the same names."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from nnlite import functional as F
from nnlite.errors import ConfigError, ShapeError
from nnlite.nn.init import fan_in_uniform
from nnlite.nn.module import Module
from nnlite.nn.parameter import Parameter
from nnlite.ops import OPS
from nnlite.ops.gates import gates_with_numbers
from nnlite.tensors import Tensor, apply_many, beside

States = tuple[Tensor, ...]


class _Recurrent(Module):
    """What all share. x [L,N,input_size] (batch first if asked for, or without N), y [L,N,D·hidden_size].

    Parameters of layer k: weight_ih_l{k} [G·hidden, input], weight_hh_l{k} [G·hidden, hidden], bias_ih_l{k},
    bias_hh_l{k}; with the suffix _reverse those of the other direction. States are [layers·D,N,hidden].
    With ``proj_size`` (LSTM) the hidden state is weight_hr_l{k} [proj_size, hidden] times what it would be.
    """

    _op: ClassVar[str]
    _order: ClassVar[tuple[int, ...]]
    """Which of PyTorch's gates stands where in the op's order."""
    _count: ClassVar[int] = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
    ) -> None:
        if min(input_size, hidden_size, num_layers) < 1 or not 0 <= dropout < 1:
            raise ConfigError(
                f"{type(self).__name__}: input_size={input_size}, hidden_size={hidden_size} and "
                f"num_layers={num_layers} must be at least 1, dropout={dropout} in [0, 1)"
            )
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.batch_first, self.dropout, self.bidirectional = batch_first, dropout, bidirectional
        if not 0 <= proj_size < hidden_size:
            raise ConfigError(
                f"{type(self).__name__}: proj_size={proj_size} must be 0 or below hidden_size={hidden_size}"
            )
        self.proj_size = proj_size
        rows = len(self._order) * hidden_size
        for layer, suffix in self._names():
            own = proj_size or hidden_size
            width = input_size if layer == 0 else own * (1 + bidirectional)
            shapes = dict[str, tuple[int, ...]](weight_ih=(rows, width), weight_hh=(rows, own))
            if bias:
                shapes.update(bias_ih=(rows,), bias_hh=(rows,))
            if proj_size:
                shapes["weight_hr"] = (proj_size, hidden_size)
            for name, shape in shapes.items():
                setattr(self, f"{name}_{suffix}", Parameter(fan_in_uniform(shape, hidden_size)))

    def _names(self) -> list[tuple[int, str]]:
        ends = ("", "_reverse") if self.bidirectional else ("",)
        return [(layer, f"l{layer}{end}") for layer in range(self.num_layers) for end in ends]

    def _params(self) -> dict[str, Any]:
        """What the op wants to know beside its operands."""
        raise NotImplementedError

    def _ordered(self, name: str) -> Tensor:
        """A parameter [1, G·hidden, …] with its gates in the op's order."""
        parts = F.chunk(getattr(self, name), len(self._order), 0)
        return F.unsqueeze(parts[0] if len(parts) == 1 else F.cat([parts[i] for i in self._order], 0), 0)

    def _run(self, x: Tensor, states: States | None, suffix: str) -> tuple[Tensor, States]:
        """One layer in one direction: all hidden states [L,N,hidden] and the last states."""
        weights = [self._ordered(f"{name}_{suffix}") for name in ("weight_ih", "weight_hh")]
        bias = None
        if hasattr(self, f"bias_ih_{suffix}"):
            bias = F.cat([self._ordered(f"{name}_{suffix}") for name in ("bias_ih", "bias_hh")], 1)
        given: list[Tensor | None] = [None] * self._count
        if states is not None:
            given = [F.unsqueeze(state, 0) for state in states]
        given += [None] * (self._count - 1)  # LSTM has peepholes, which PyTorch's lacks
        direction = "reverse" if suffix.endswith("_reverse") else "forward"
        params = dict(direction=direction, clip=None) | self._params()
        y, *last = apply_many(OPS[self._op], x, *weights, bias, None, *given, **params)
        return F.squeeze(y, 1), tuple(F.squeeze(state, 0) for state in last)

    def forward(self, x: Tensor, hx: Any = None) -> Any:
        """All outputs of the last layer, and the last states of every layer and direction."""
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size:
            raise ShapeError(
                f"{type(self).__name__}: x has shape {list(x.shape)} but must be [L,N,{self.input_size}] or "
                f"[L,{self.input_size}]"
            )
        alone = x.ndim == 2
        x = F.unsqueeze(x, 1) if alone else x.transpose(0, 1) if self.batch_first else x
        names = self._names()
        sizes = (self.proj_size or self.hidden_size, self.hidden_size)[: self._count]
        wanted = [(len(names), x.shape[1], size) for size in sizes]
        given: States | None = None  # zeros
        if hx is not None:
            given = hx if isinstance(hx, tuple) else (hx,)
            given = tuple(F.unsqueeze(s, 1) for s in given) if alone else given
        if given is not None and [s.shape for s in given] != wanted:
            shapes = " and ".join(str(list(shape)) for shape in wanted)
            raise ShapeError(f"{type(self).__name__}: hx must be {self._count} states of {shapes}")
        last: list[States] = []
        for layer in range(self.num_layers):
            if layer and self.dropout and self.training and not self.frozen:
                x = F.dropout(x, self.dropout)
            directions = []
            for i, (number, suffix) in enumerate(names):
                if number == layer:
                    y, states = self._run(x, None if given is None else tuple(s[i] for s in given), suffix)
                    directions.append(y)
                    last.append(states)
            x = F.cat(directions, -1) if len(directions) > 1 else directions[0]
        final = tuple(F.stack([states[i] for states in last], 0) for i in range(self._count))
        if alone:
            x, final = F.squeeze(x, 1), tuple(F.squeeze(s, 1) for s in final)
        elif self.batch_first:
            x = x.transpose(0, 1)
        return x, final if self._count > 1 else final[0]

    def extra_repr(self) -> str:
        """Options, for repr."""
        text = f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}"
        return f"{text}, bidirectional={self.bidirectional}, batch_first={self.batch_first}"


class RNN(_Recurrent):
    """h = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu. Source: Elman 1990; torch.nn.RNN."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ConfigError(f"RNN: nonlinearity={nonlinearity!r} must be 'tanh' or 'relu'")
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional)
        self.nonlinearity = nonlinearity

    _op, _order = "rnn", (0,)

    def _params(self) -> dict[str, Any]:
        return dict(activations=gates_with_numbers([self.nonlinearity], (), ()))


class LSTM(_Recurrent):
    """Gates i, f, g, o from W_ih x + b_ih + W_hh h + b_hh; c = σ(f) · c + σ(i) · tanh(g), h = σ(o) · tanh(c).

    Source: Hochreiter and Schmidhuber 1997; torch.nn.LSTM.
    """

    _op, _order, _count = "lstm", (0, 3, 1, 2), 2

    def _params(self) -> dict[str, Any]:
        named = gates_with_numbers(("Sigmoid", "Tanh", "Tanh"), (), ())
        return dict(activations=named, input_forget=False)

    def _run(self, x: Tensor, states: States | None, suffix: str) -> tuple[Tensor, States]:
        if not self.proj_size:
            return super()._run(x, states, suffix)
        if states is None:
            sizes = self.proj_size, self.hidden_size
            states = tuple(beside(np.zeros((x.shape[1], size), x.dtype), x) for size in sizes)
        # No operator projects the hidden state on its way to the next step: step by step.
        weight_hh, bias_hh, weight_hr = (
            getattr(self, f"{name}_{suffix}", None) for name in ("weight_hh", "bias_hh", "weight_hr")
        )
        assert weight_hh is not None and weight_hr is not None
        bias = getattr(self, f"bias_ih_{suffix}", None)
        given = F.unbind(F.linear(x, getattr(self, f"weight_ih_{suffix}"), bias), 0)
        backwards = suffix.endswith("_reverse")
        outputs: list[Tensor] = []
        for step in reversed(given) if backwards else given:
            i, f, g, o = F.chunk(step + F.linear(states[0], weight_hh, bias_hh), 4, 1)
            cell = F.sigmoid(f) * states[1] + F.sigmoid(i) * F.tanh(g)
            states = F.linear(F.sigmoid(o) * F.tanh(cell), weight_hr), cell
            outputs.append(states[0])
        return F.stack(outputs[::-1] if backwards else outputs, 0), states


class GRU(_Recurrent):
    """Gates r, z, n: n = tanh(W_in x + b_in + σ(r) · (W_hn h + b_hn)), h = (1 - σ(z)) · n + σ(z) · h.

    Source: Cho et al. 2014, arXiv:1406.1078; torch.nn.GRU.
    """

    _op, _order = "gru", (1, 0, 2)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
    ) -> None:
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional)

    def _params(self) -> dict[str, Any]:
        named = gates_with_numbers(("Sigmoid", "Tanh"), (), ())
        return dict(activations=named, linear_before_reset=True)
