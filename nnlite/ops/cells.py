"""One step of a recurrent network, forward and backward: RNN, GRU, LSTM as ONNX defines them.

A cell gets what its inputs project to, ``given`` [N,G·H] = x Wᵀ + b_w, and its states [N,H]; it returns
the sums that go into the activations, ``pre``, and the new states. Backward computes the activations anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnlite import memory
from nnlite.geometry import conv2d_geometry
from nnlite.kernels import launch
from nnlite.layout import Array, contiguous

States = tuple[Array, ...]
Activation = Any
"""``nnlite.ops.gates.Clipped``: y = f(x), and f.slope(x, y)."""


@dataclass
class Weights:
    """What a step computes with, or the gradients of it."""

    r: Array
    """[G·H,H]."""
    bias: Array
    """[G·H], added to h Rᵀ."""
    peephole: Array | None = None
    """[3H], LSTM's, for the input, output and forget gate."""


@dataclass(frozen=True)
class Cell:
    """A step; gradients of the weights are added to ``gw``."""

    gates: int
    states: int
    defaults: tuple[str, ...]
    """The activations, where the file names none."""
    forward: Callable[[Array, States, Weights, Sequence[Activation], Any], tuple[Array, States]]
    backward: Callable[..., tuple[Array, States]]
    """(pre, states before, states after, gradients of those after, w, gw, activations, params) -> gradient of
    ``given``, gradients of the states before."""


def _rows(a: Array, columns: int) -> tuple[int, int, int, int]:
    """As pictures of one pixel: the kernels of linear layers keep to nnlite's own threads, BLAS does not."""
    return a.shape[0], columns, 1, 1


def _linear(h: Array, r: Array, bias: Array) -> Array:
    """H rᵀ + bias."""
    geometry = conv2d_geometry(_rows(h, h.shape[1]), (*r.shape, 1, 1))
    y = memory.empty(geometry.y_shape, h.dtype, like=h)
    h = contiguous(h).reshape(geometry.x_shape)
    launch("conv2d_forward", geometry, h, r.reshape(geometry.w_shape), bias, None, y)
    return y.reshape(-1, r.shape[0])


def _towards(g: Array, r: Array) -> Array:
    """G r: the gradient of h."""
    geometry = conv2d_geometry(_rows(g, r.shape[1]), (*r.shape, 1, 1))
    gh = memory.empty(geometry.x_shape, g.dtype, like=g)
    g = contiguous(g).reshape(geometry.y_shape)
    launch("conv2d_grad_input", geometry, g, r.reshape(geometry.w_shape), gh)
    return gh.reshape(-1, r.shape[1])


def _outer(g: Array, h: Array) -> Array:
    """Gᵀ h: the gradient of r."""
    geometry = conv2d_geometry(_rows(h, h.shape[1]), (g.shape[1], h.shape[1], 1, 1))
    gr = memory.empty(geometry.w_shape, g.dtype, like=g)
    h, g = contiguous(h), contiguous(g)
    launch("conv2d_grad_weight", geometry, h.reshape(geometry.x_shape), g.reshape(geometry.y_shape), gr)
    return gr.reshape(g.shape[1], h.shape[1])


def _parts(a: Array, count: int) -> list[Array]:
    return np.split(a, count, axis=-1)


# ------------------------------------------------------------------------------------------- RNN


def rnn_step(given: Array, states: States, w: Weights, f: Sequence[Activation], params: Any) -> Any:
    """h' = f(given + h Rᵀ + b)."""
    pre = given + _linear(states[0], w.r, w.bias)
    return pre, (f[0](pre),)


def rnn_back(
    pre: Array, before: States, after: States, gafter: States, w: Weights, gw: Weights,
    f: Sequence[Activation], params: Any,
) -> tuple[Array, States]:  # fmt: skip
    """The gradient of :func:`rnn_step`."""
    gpre = gafter[0] * f[0].slope(pre, f[0](pre))
    gw.r += _outer(gpre, before[0])
    gw.bias += gpre.sum(0)
    return gpre, (_towards(gpre, w.r),)


# ------------------------------------------------------------------------------------------- GRU


def _reset_part(h: Array, reset: Array, w: Weights, before_reset: bool) -> Array:
    """What the past adds to the new state's sum: the reset gate works before or after R."""
    size = h.shape[1]
    r, bias = w.r[2 * size :], w.bias[2 * size :]
    part: Array = reset * _linear(h, r, bias) if before_reset else _linear(reset * h, r, bias)
    return part


def gru_step(given: Array, states: States, w: Weights, f: Sequence[Activation], params: Any) -> Any:
    """z, r = f(…), n = g(given + r · h's part), h' = (1 - z) n + z h."""
    (h,) = states
    size = h.shape[1]
    first = given[:, : 2 * size] + _linear(h, w.r[: 2 * size], w.bias[: 2 * size])
    update, reset = _parts(f[0](first), 2)
    last = given[:, 2 * size :] + _reset_part(h, reset, w, params["linear_before_reset"])
    new = f[1](last)
    return np.concatenate([first, last], 1), ((1 - update) * new + update * h,)


def gru_back(
    pre: Array, before: States, after: States, gafter: States, w: Weights, gw: Weights,
    f: Sequence[Activation], params: Any,
) -> tuple[Array, States]:  # fmt: skip
    """The gradient of :func:`gru_step`."""
    (h,), (gh,) = before, gafter
    size = h.shape[1]
    first, last = pre[:, : 2 * size], pre[:, 2 * size :]
    gates, new = f[0](first), f[1](last)
    update, reset = _parts(gates, 2)
    r, bias = w.r[2 * size :], w.bias[2 * size :]
    glast = gh * (1 - update) * f[1].slope(last, new)
    if params["linear_before_reset"]:
        greset, gpart = glast * _linear(h, r, bias), glast * reset
        gw.r[2 * size :] += _outer(gpart, h)
        gw.bias[2 * size :] += gpart.sum(0)
        gbefore = _towards(gpart, r)
    else:
        gpart = _towards(glast, r)
        greset, gbefore = gpart * h, gpart * reset
        gw.r[2 * size :] += _outer(glast, reset * h)
        gw.bias[2 * size :] += glast.sum(0)
    gfirst = np.concatenate([gh * (h - new), greset], 1) * f[0].slope(first, gates)
    gw.r[: 2 * size] += _outer(gfirst, h)
    gw.bias[: 2 * size] += gfirst.sum(0)
    gbefore = gbefore + gh * update + _towards(gfirst, w.r[: 2 * size])
    return np.concatenate([gfirst, glast], 1), (gbefore,)


# ------------------------------------------------------------------------------------------ LSTM


def _peepholes(w: Weights, size: int) -> Sequence[Array | float]:
    """For the input, output and forget gate."""
    return (0.0, 0.0, 0.0) if w.peephole is None else _parts(w.peephole, 3)


def lstm_step(given: Array, states: States, w: Weights, f: Sequence[Activation], params: Any) -> Any:
    """i, o, f = f(… + P c), g = g(…); c' = f c + i g, h' = o h(c'); the output gate sees c'."""
    h, c = states
    pi, po, pf = _peepholes(w, h.shape[1])
    i, o, forget, cell = _parts(given + _linear(h, w.r, w.bias), 4)
    i, forget = i + pi * c, forget + pf * c
    inward = f[0](i)
    kept = 1 - inward if params["input_forget"] else f[0](forget)
    new = kept * c + inward * f[1](cell)
    o = o + po * new
    return np.concatenate([i, o, forget, cell], 1), (f[0](o) * f[2](new), new)


def lstm_back(
    pre: Array, before: States, after: States, gafter: States, w: Weights, gw: Weights,
    f: Sequence[Activation], params: Any,
) -> tuple[Array, States]:  # fmt: skip
    """The gradient of :func:`lstm_step`."""
    (h, c), (_, new), (gh, gnew) = before, after, gafter
    pi, po, pf = _peepholes(w, h.shape[1])
    i, o, forget, cell = _parts(pre, 4)
    inward, outward, proposed, shown = f[0](i), f[0](o), f[1](cell), f[2](new)
    kept = 1 - inward if params["input_forget"] else f[0](forget)
    go = gh * shown * f[0].slope(o, outward)
    gnew = gnew + gh * outward * f[2].slope(new, shown) + go * po
    gkept, ginward = gnew * c, gnew * proposed
    if params["input_forget"]:
        gforget, ginward = np.zeros_like(gkept), ginward - gkept
    else:
        gforget = gkept * f[0].slope(forget, kept)
    gi = ginward * f[0].slope(i, inward)
    gpre = np.concatenate([gi, go, gforget, gnew * inward * f[1].slope(cell, proposed)], 1)
    gw.r += _outer(gpre, h)
    gw.bias += gpre.sum(0)
    if gw.peephole is not None:
        gw.peephole += np.concatenate([(gi * c).sum(0), (go * new).sum(0), (gforget * c).sum(0)])
    return gpre, (_towards(gpre, w.r), gnew * kept + gi * pi + gforget * pf)


RNN = Cell(1, 1, ("Tanh",), rnn_step, rnn_back)
GRU = Cell(3, 1, ("Sigmoid", "Tanh"), gru_step, gru_back)
LSTM = Cell(4, 2, ("Sigmoid", "Tanh", "Tanh"), lstm_step, lstm_back)
