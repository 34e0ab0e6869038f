"""Rows [M,C], each by itself: softmax, cross-entropy, layer normalisation; and resizing by tables of taps.

Rows are cut into tasks by their size alone; sums are kept in float64. An array of size 0 stands for one
that is absent.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from nnlite.kernels.numba_cpu.jit.options import borrow, helper, parallel
from nnlite.layout import Array

ELEMENTS = 16384  # that one task takes


@helper
def _exponentials(x: Array, largest: float) -> float:
    total = 0.0
    for c in range(x.size):
        total += np.exp(x[c] - largest)
    return total


@helper
def _largest(x: Array) -> float:
    most: float = x[0]
    for c in range(x.size):
        most = x[c] if x[c] > most else most
    return most


@parallel
def softmax(x: Array, y: Array, logarithm: bool) -> None:
    M, C = x.shape
    per_task = max(1, ELEMENTS // C)
    for task in prange((M + per_task - 1) // per_task):
        rows, results = borrow(x), borrow(y)
        for m in range(task * per_task, min(M, (task + 1) * per_task)):
            row, to = rows[m], results[m]
            most = _largest(row)
            total = _exponentials(row, most)
            log_total = np.log(total)
            for c in range(C):
                shifted = row[c] - most
                to[c] = shifted - log_total if logarithm else np.exp(shifted) / total


@parallel
def softmax_gradient(gy: Array, y: Array, gx: Array, logarithm: bool) -> None:
    M, C = y.shape
    per_task = max(1, ELEMENTS // C)
    for task in prange((M + per_task - 1) // per_task):
        gradients, rows, results = borrow(gy), borrow(y), borrow(gx)
        for m in range(task * per_task, min(M, (task + 1) * per_task)):
            g, row, to = gradients[m], rows[m], results[m]
            total = 0.0
            for c in range(C):
                total += g[c] if logarithm else g[c] * row[c]
            for c in range(C):
                to[c] = g[c] - np.exp(row[c]) * total if logarithm else row[c] * (g[c] - total)


@parallel
def cross_entropy(
    logits: Array, labels: Array, weight: Array, options: Array, losses: Array, gradient: Array
) -> None:
    M, C = logits.shape
    smoothing, scale = options[0], options[1]
    per_task = max(1, ELEMENTS // C)
    for task in prange((M + per_task - 1) // per_task):
        rows, places, weights = borrow(logits), borrow(labels), borrow(weight)
        results, gradients = borrow(losses), borrow(gradient)
        for m in range(task * per_task, min(M, (task + 1) * per_task)):
            row, label = rows[m], places[m]
            if label < 0:
                results[m] = 0
                if gradients.size:
                    gradients[m, :] = 0
                continue
            most = _largest(row)
            total = _exponentials(row, most)
            log_total, share = np.log(total), smoothing / C
            own = (1 - smoothing) * (weights[label] if weights.size else 1)
            loss, shares = own * (log_total - (row[label] - most)), own + 0.0
            if smoothing:
                for c in range(C):
                    part = share * (weights[c] if weights.size else 1)
                    loss += part * (log_total - (row[c] - most))
                    shares += part
            results[m] = loss
            if gradients.size:
                to = gradients[m]
                for c in range(C):
                    part = share * (weights[c] if weights.size else 1)
                    to[c] = scale * (np.exp(row[c] - most) / total * shares - part)
                to[label] -= scale * own


@parallel
def layer_norm(
    x: Array, weight: Array, bias: Array, y: Array, mean: Array, inv_std: Array, epsilon: float
) -> None:
    M, C = x.shape
    per_task = max(1, ELEMENTS // C)
    for task in prange((M + per_task - 1) // per_task):
        rows, results, factors, summands = borrow(x), borrow(y), borrow(weight), borrow(bias)
        means, deviations = borrow(mean), borrow(inv_std)
        for m in range(task * per_task, min(M, (task + 1) * per_task)):
            row, to = rows[m], results[m]
            centre = 0.0
            for c in range(C):
                centre += row[c]
            centre /= C
            square = 0.0
            for c in range(C):
                square += (row[c] - centre) ** 2
            factor = 1 / np.sqrt(square / C + epsilon)
            means[m], deviations[m] = centre, factor
            for c in range(C):
                value = (row[c] - centre) * factor
                value = value * factors[c] if factors.size else value
                to[c] = value + summands[c] if summands.size else value


@parallel
def layer_norm_gradient(
    x: Array, gy: Array, weight: Array, mean: Array, inv_std: Array, gx: Array, partial: Array
) -> None:
    """gx, and partial [chunks,2,C] = sums of gy x̂ and of gy."""
    M, C = x.shape
    chunks = partial.shape[0]
    for chunk in prange(chunks):
        rows, gradients, factors, results = borrow(x), borrow(gy), borrow(weight), borrow(gx)
        means, deviations, sums = borrow(mean), borrow(inv_std), borrow(partial)[chunk]
        sums[:] = 0
        for m in range(M * chunk // chunks, M * (chunk + 1) // chunks):
            row, slopes, centre, factor = rows[m], gradients[m], means[m], deviations[m]
            plain, dot = 0.0, 0.0
            for c in range(C):
                normal = (row[c] - centre) * factor
                sums[0, c] += slopes[c] * normal
                sums[1, c] += slopes[c]
                g = slopes[c] * factors[c] if factors.size else slopes[c]
                plain += g
                dot += g * normal
            if results.size:
                to = results[m]
                for c in range(C):
                    normal = (row[c] - centre) * factor
                    g = slopes[c] * factors[c] if factors.size else slopes[c]
                    to[c] = factor * (g - plain / C - normal * dot / C)


@parallel
def resize(
    x: Array, row_start: Array, row: Array, row_weight: Array,
    column_start: Array, column: Array, column_weight: Array, y: Array,
) -> None:  # fmt: skip
    """Of x [N,H,W,C] and y [N,P,Q,C]."""
    N, P, Q, C = y.shape
    for i in prange(N * P):
        n, p = i // P, i % P
        pictures, results = borrow(x), borrow(y)
        rows, row_weights, columns, column_weights = (
            borrow(row), borrow(row_weight), borrow(column), borrow(column_weight)
        )  # fmt: skip
        for q in range(Q):
            to = results[n, p, q]
            to[:] = 0
            for a in range(row_start[p], row_start[p + 1]):
                for b in range(column_start[q], column_start[q + 1]):
                    weight, source = row_weights[a] * column_weights[b], pictures[n, rows[a], columns[b]]
                    for c in range(C):
                        to[c] += weight * source[c]
