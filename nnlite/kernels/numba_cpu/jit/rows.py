"""Passes over rows [M,C], and over runs of numbers.

Rows are cut into chunks, and runs into pieces, by their size alone; sums are kept in float64. An array
of size 0 stands for one that is absent. An activation keeps z within [low, high], which may be infinite.
``gate`` says where its gradient passes: 0 everywhere, 1 ReLU, 2 a clamp seen from z, 3 seen from y.
"""

from __future__ import annotations

from math import erf, pi, sqrt

import numpy as np
from numba import prange

from nnlite.kernels.numba_cpu.jit.options import borrow, helper, parallel
from nnlite.layout import Array

PIECE = 16384  # numbers of a run that one task takes: starting threads costs as much as some thousands


@helper
def _within(z: float, low: float, high: float) -> float:
    return low if z < low else high if z > high else z  # a NaN stays one


@helper
def _passes(v: float, gate: int, low: float, high: float) -> bool:
    relu, seen_from_z = not (v <= 0), low <= v <= high
    seen_from_y = low < v < high
    return gate == 0 or (gate == 1 and relu) or (gate == 2 and seen_from_z) or (gate == 3 and seen_from_y)


@parallel
def moments(x: Array, mean: Array, power: int, partial: Array) -> None:
    """partial [chunks,C] = sums of (x - mean)^power, power 1 or 2."""
    M, C = x.shape
    chunks = partial.shape[0]
    for chunk in prange(chunks):
        rows, centre, sums = borrow(x), borrow(mean), borrow(partial)[chunk]
        sums[:] = 0
        for m in range(M * chunk // chunks, M * (chunk + 1) // chunks):
            row = rows[m]
            if power == 1:
                for c in range(C):
                    sums[c] += row[c] - centre[c]
            else:
                for c in range(C):
                    centred = row[c] - centre[c]
                    sums[c] += np.float64(centred) * centred


@parallel
def affine(
    x: Array, mean: Array, scale: Array, shift: Array, residual: Array, y: Array,
    low: float, high: float, chunks: int,
) -> None:  # fmt: skip
    """y = act((x - mean) scale + shift + residual)."""
    M, C = x.shape
    for chunk in prange(chunks):
        rows, added, results = borrow(x), borrow(residual), borrow(y)
        centre, factor, summand = borrow(mean), borrow(scale), borrow(shift)
        for m in range(M * chunk // chunks, M * (chunk + 1) // chunks):
            row, to = rows[m], results[m]
            if added.size:
                more = added[m]
                for c in range(C):
                    z = (row[c] - centre[c]) * factor[c] + summand[c] + more[c]
                    to[c] = _within(z, low, high)
            else:
                for c in range(C):
                    to[c] = _within((row[c] - centre[c]) * factor[c] + summand[c], low, high)


@helper
def _gated(
    row: Array, gradient: Array, seen: Array, origin: Array, slope: Array, shift: Array,
    gate: int, low: float, high: float, to: Array,
) -> None:  # fmt: skip
    """The row of a gradient that the activation lets pass; it looks at y, or at z made anew from x."""
    if gate == 0:
        for c in range(to.size):
            to[c] = gradient[c]
    elif seen.size:
        for c in range(to.size):
            to[c] = gradient[c] if _passes(seen[c], gate, low, high) else 0
    else:
        for c in range(to.size):
            z = (row[c] - origin[c]) * slope[c] + shift[c]
            to[c] = gradient[c] if _passes(z, gate, low, high) else 0


@parallel
def gradient_sums(
    x: Array, gy: Array, y: Array, origin: Array, slope: Array, shift: Array, mean: Array, inv_std: Array,
    gate: int, low: float, high: float, gresidual: Array, passed: Array, partial: Array,
) -> None:  # fmt: skip
    """gresidual = g, gy where the activation passes; partial [chunks,2,C] = sums of g, g (x - mean) inv_std.

    ``passed`` [chunks,C] holds one row of g for each chunk.
    """
    M, C = x.shape
    chunks = partial.shape[0]
    for chunk in prange(chunks):
        rows, gradients, outputs, residuals = borrow(x), borrow(gy), borrow(y), borrow(gresidual)
        start, factor, summand = borrow(origin), borrow(slope), borrow(shift)
        centre, deviation, g = borrow(mean), borrow(inv_std), borrow(passed)[chunk]
        plain, weighted = borrow(partial)[chunk, 0], borrow(partial)[chunk, 1]
        plain[:] = 0
        weighted[:] = 0
        for m in range(M * chunk // chunks, M * (chunk + 1) // chunks):
            row = rows[m]
            seen = outputs[m] if outputs.size else outputs[:0].reshape(-1)
            _gated(row, gradients[m], seen, start, factor, summand, gate, low, high, g)
            for c in range(C):
                plain[c] += g[c]
                weighted[c] += g[c] * ((row[c] - centre[c]) * deviation[c])
            if residuals.size:
                residuals[m] = g


@parallel
def gradient(
    x: Array, gy: Array, y: Array, origin: Array, slope: Array, shift: Array, mean: Array, scale: Array,
    plain: Array, weighted: Array, gate: int, low: float, high: float, gx: Array, chunks: int,
) -> None:  # fmt: skip
    """gx = scale (g - plain - (x - mean) weighted), without ``plain`` scale g; g is gy where act passes."""
    M, C = x.shape
    for chunk in prange(chunks):
        rows, gradients, outputs, results = borrow(x), borrow(gy), borrow(y), borrow(gx)
        start, steep, summand = borrow(origin), borrow(slope), borrow(shift)
        centre, factor, first, second = borrow(mean), borrow(scale), borrow(plain), borrow(weighted)
        for m in range(M * chunk // chunks, M * (chunk + 1) // chunks):
            row, to = rows[m], results[m]
            seen = outputs[m] if outputs.size else outputs[:0].reshape(-1)
            _gated(row, gradients[m], seen, start, steep, summand, gate, low, high, to)
            if first.size:
                for c in range(C):
                    to[c] = factor[c] * (to[c] - first[c] - (row[c] - centre[c]) * second[c])
            else:
                for c in range(C):
                    to[c] = factor[c] * to[c]


@parallel
def combine(a: Array, b: Array, y: Array, alpha: float, beta: float, low: float, high: float) -> None:
    """y = act(alpha a + beta b)."""
    size = y.size
    for piece in prange((size + PIECE - 1) // PIECE):
        first, last = piece * PIECE, min(size, (piece + 1) * PIECE)
        u, to = borrow(a)[first:last], borrow(y)[first:last]
        if b.size:
            v = borrow(b)[first:last]
            for i in range(last - first):
                to[i] = _within(alpha * u[i] + beta * v[i], low, high)
        else:
            for i in range(last - first):
                to[i] = _within(alpha * u[i], low, high)


@parallel
def multiply(a: Array, b: Array, y: Array) -> None:
    """y = a b."""
    size = y.size
    for piece in prange((size + PIECE - 1) // PIECE):
        first, last = piece * PIECE, min(size, (piece + 1) * PIECE)
        u, v, to = borrow(a)[first:last], borrow(b)[first:last], borrow(y)[first:last]
        for i in range(last - first):
            to[i] = u[i] * v[i]


@helper
def _sigmoid(x: float) -> float:
    small: float = np.exp(-abs(x))
    return (1 if x >= 0 else small) / (1 + small)


@helper
def _value(x: float, function: int, a: float, b: float) -> float:
    """The functions in the order of ``nnlite.geometry.FUNCTIONS``."""
    if function == 0:
        return _sigmoid(x)
    if function == 1:
        return float(np.tanh(x))
    if function == 2:
        return x * _sigmoid(x)
    if function == 5:
        return x if x > 0 else x * a
    if function == 6:
        return x * 0.5 * (1 + erf(x * sqrt(0.5)))
    if function == 7:
        return float(x * 0.5 * (1 + np.tanh(sqrt(2 / pi) * (x + 0.044715 * x * x * x))))
    if function == 8:
        return erf(x)
    ramp = _within(x * a + b, 0, 1)
    return ramp if function == 3 else x * ramp


@helper
def _slope(z: float, function: int, a: float, b: float) -> float:
    if function == 0:
        return z * (1 - z)
    if function == 1:
        return 1 - z * z
    if function == 2:
        s = _sigmoid(z)
        return s * (1 + z * (1 - s))
    if function == 5:
        return 1 if z > 0 else a
    if function == 6:
        return float(0.5 * (1 + erf(z * sqrt(0.5))) + z * np.exp(-0.5 * z * z) / sqrt(2 * pi))
    if function == 7:
        t = np.tanh(sqrt(2 / pi) * (z + 0.044715 * z * z * z))
        return float(0.5 * (1 + t + z * (1 - t * t) * sqrt(2 / pi) * (1 + 3 * 0.044715 * z * z)))
    if function == 8:
        return float(np.exp(-z * z) * (2 / sqrt(pi)))
    y = z * a + b
    if y <= 0:
        return 0
    if y >= 1:
        return 0 if function == 3 else 1
    return a if function == 3 else y + z * a


@parallel
def function(x: Array, y: Array, function: int, a: float, b: float) -> None:
    """y = f(x)."""
    size = y.size
    for piece in prange((size + PIECE - 1) // PIECE):
        first, last = piece * PIECE, min(size, (piece + 1) * PIECE)
        values, to = borrow(x)[first:last], borrow(y)[first:last]
        for i in range(last - first):
            to[i] = _value(values[i], function, a, b)


@parallel
def function_gradient(gy: Array, z: Array, gx: Array, function: int, a: float, b: float) -> None:
    """gx = gy f'(z)."""
    size = gx.size
    for piece in prange((size + PIECE - 1) // PIECE):
        first, last = piece * PIECE, min(size, (piece + 1) * PIECE)
        gradients, values, to = borrow(gy)[first:last], borrow(z)[first:last], borrow(gx)[first:last]
        for i in range(last - first):
            to[i] = gradients[i] * _slope(values[i], function, a, b)


@parallel
def gate(gy: Array, z: Array, gx: Array, gate: int, low: float, high: float) -> None:
    """gx = gy where the activation passes at z, else 0."""
    size = gx.size
    for piece in prange((size + PIECE - 1) // PIECE):
        first, last = piece * PIECE, min(size, (piece + 1) * PIECE)
        gradients, values, to = borrow(gy)[first:last], borrow(z)[first:last], borrow(gx)[first:last]
        for i in range(last - first):
            to[i] = gradients[i] if _passes(values[i], gate, low, high) else 0


@parallel
def sgd(weight: Array, gradient: Array, velocity: Array, options: Array, new: Array, moved: Array) -> None:
    lr, decay, momentum, keep, nesterov = options[0], options[1], options[2], options[3], options[4]
    size = new.size
    for piece in prange((size + PIECE - 1) // PIECE):
        weights, slopes, before = borrow(weight), borrow(gradient), borrow(velocity)
        to, after = borrow(new), borrow(moved)
        for i in range(piece * PIECE, min(size, (piece + 1) * PIECE)):
            # Without decay an infinite weight must not make a NaN of the gradient.
            slope = slopes[i] + decay * weights[i] if decay else slopes[i]
            step = momentum * before[i] + keep * slope if before.size else slope
            if after.size:
                after[i] = step
            to[i] = weights[i] - lr * (slope + momentum * step if nesterov else step)


@parallel
def adam(
    weight: Array, gradient: Array, mean: Array, square: Array, options: Array,
    new: Array, new_mean: Array, new_square: Array,
) -> None:  # fmt: skip
    shrink, decay, b1, rest1, b2 = options[0], options[1], options[2], options[3], options[4]
    rest2, root_scale, epsilon, rate = options[5], options[6], options[7], options[8]
    size = new.size
    for piece in prange((size + PIECE - 1) // PIECE):
        weights, slopes, first, second = borrow(weight), borrow(gradient), borrow(mean), borrow(square)
        to, to_first, to_second = borrow(new), borrow(new_mean), borrow(new_square)
        for i in range(piece * PIECE, min(size, (piece + 1) * PIECE)):
            shrunk = shrink * weights[i]
            slope = slopes[i] + decay * shrunk if decay else slopes[i]
            m = b1 * first[i] + rest1 * slope
            s = b2 * second[i] + rest2 * (slope * slope)
            to_first[i], to_second[i] = m, s
            to[i] = shrunk - rate * m / (root_scale * np.sqrt(s) + epsilon)
