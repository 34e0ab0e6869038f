"""Dense and grouped convolution as products of small tiles that stay in the first-level cache.

A *block* of the reduction is some taps (r,s) times some input channels of one group. Rows of the source
that a block meets are gathered into a tile, padding as zeros, and multiplied by the block's weights,
which were packed once into panels of WIDTHS[i] output channels. Forward and input gradient are the
same walk: the source position of target position o at tap r is (o·scale + shift + r·step) / divisor,
where that is whole and inside. With divisor > 1 targets are taken by remainder ("phase"), so that all
rows of a tile meet the same taps.

Groups that are narrower than the narrowest panel are *joined*: several become one, with zeros for the
weights between them. So a channel that holds an infinity or NaN makes the outputs of all joined groups
NaN. 32 groups of 4 channels, 3x3, run three times as fast for it.
"""

from __future__ import annotations

from collections.abc import Callable

from numba import prange

from nnlite.kernels.numba_cpu.jit.options import borrow, helper, parallel
from nnlite.layout import Array

Ints = tuple[int, ...]


def _block_product(width: int) -> Callable[..., None]:
    # The width is a constant of the compiled code: the loop over k then unrolls into whole vectors, needs
    # no check for overlap, and 24 scalars wait in registers for it. One thread of a CPU with AVX-512:
    # 195 GFLOP/s at width 128, 143 at 64, 98 at 32; with the width as an argument 52 at 128.
    @helper
    def product(
        a: Array, row_step: int, step: int, b: Array, start: int, acc: Array, rows: int, depth: int
    ) -> None:
        """acc [rows,width] += a [rows,depth] b [depth,width]; multiples of ROWS and DEPTH."""
        for d in range(0, depth, 6):
            w = b[start + d * width : start + (d + 6) * width]
            for t in range(0, rows, 4):
                i0 = t * row_step + d * step
                i1, i2, i3 = i0 + row_step, i0 + 2 * row_step, i0 + 3 * row_step
                a00, a01, a02 = a[i0], a[i0 + step], a[i0 + 2 * step]
                a03, a04, a05 = a[i0 + 3 * step], a[i0 + 4 * step], a[i0 + 5 * step]
                a10, a11, a12 = a[i1], a[i1 + step], a[i1 + 2 * step]
                a13, a14, a15 = a[i1 + 3 * step], a[i1 + 4 * step], a[i1 + 5 * step]
                a20, a21, a22 = a[i2], a[i2 + step], a[i2 + 2 * step]
                a23, a24, a25 = a[i2 + 3 * step], a[i2 + 4 * step], a[i2 + 5 * step]
                a30, a31, a32 = a[i3], a[i3 + step], a[i3 + 2 * step]
                a33, a34, a35 = a[i3 + 3 * step], a[i3 + 4 * step], a[i3 + 5 * step]
                y = acc[t * width : (t + 4) * width]
                for k in range(width):
                    k1, k2, k3, k4, k5 = k + width, k + 2 * width, k + 3 * width, k + 4 * width, k + 5 * width
                    w0, w1, w2, w3, w4, w5 = w[k], w[k1], w[k2], w[k3], w[k4], w[k5]
                    y[k] = y[k] + a00 * w0 + a01 * w1 + a02 * w2 + a03 * w3 + a04 * w4 + a05 * w5
                    y[k1] = y[k1] + a10 * w0 + a11 * w1 + a12 * w2 + a13 * w3 + a14 * w4 + a15 * w5
                    y[k2] = y[k2] + a20 * w0 + a21 * w1 + a22 * w2 + a23 * w3 + a24 * w4 + a25 * w5
                    y[k3] = y[k3] + a30 * w0 + a31 * w1 + a32 * w2 + a33 * w3 + a34 * w4 + a35 * w5

    return product


WIDTHS = (16, 32, 64, 128)
_product16, _product32, _product64, _product128 = map(_block_product, WIDTHS)


@helper
def _multiply(
    a: Array, row_step: int, step: int, b: Array, start: int, acc: Array, rows: int, depth: int, width: int
) -> None:
    if width == 128:
        _product128(a, row_step, step, b, start, acc, rows, depth)
    elif width == 64:
        _product64(a, row_step, step, b, start, acc, rows, depth)
    elif width == 32:
        _product32(a, row_step, step, b, start, acc, rows, depth)
    else:
        _product16(a, row_step, step, b, start, acc, rows, depth)


@helper
def _round_up(value: int, multiple: int) -> int:
    return (value + multiple - 1) // multiple * multiple


@helper
def _place(
    places: Array, count: int, first: int, phase: Ints, source: Ints, target: Ints, walk: Ints
) -> None:
    """For ``count`` targets of a phase: where each lies, its image, and its source position at tap (0,0)."""
    phase_h, phase_w, high, wide = phase
    scale_h, scale_w, shift_h, shift_w, _, _, divisor_h, divisor_w = walk
    for t in range(count):
        m = first + t
        n, rest = m // (high * wide), m % (high * wide)
        h = phase_h + rest // wide * divisor_h
        w = phase_w + rest % wide * divisor_w
        places[t, 0] = (n * target[0] + h) * target[1] + w
        places[t, 1] = n * source[0]
        places[t, 2] = h * scale_h + shift_h
        places[t, 3] = w * scale_w + shift_w


@helper
def _gather(
    tile: Array, stride: int, x: Array, places: Array, start: int, count: int, filled: int,
    block: Ints, run: int, offset: int, source: Ints, walk: Ints, S: int,
) -> None:  # fmt: skip
    """tile [filled, stride] = what rows ``places[start:start+count]`` meet under the block, else zeros.

    A run of ``run`` taps along s lies in one piece where all of it is inside.
    """
    H, W, C = source
    tap0, taps, channel0, channels = block
    _, _, _, _, step_h, step_w, divisor_h, divisor_w = walk
    used = taps * channels
    for t in range(count):
        row = tile[t * stride : (t + 1) * stride]
        n, h0, w0 = places[start + t, 1], places[start + t, 2], places[start + t, 3]
        for first in range(0, taps, run):
            r, s = (tap0 + first) // S, (tap0 + first) % S
            h, w = h0 + r * step_h, w0 + s * step_w
            if divisor_h > 1:
                h //= divisor_h
            if divisor_w > 1:
                w //= divisor_w
            to = row[first * channels : (first + run) * channels]
            low, high = max(0, -w), min(run, W - w)
            if h < 0 or h >= H or low >= high:
                for c in range(run * channels):
                    to[c] = 0
                continue
            for c in range(low * channels):
                to[c] = 0
            at = ((n + h) * W + w + low) * C + offset + channel0
            size = (high - low) * channels
            values, inner = x[at : at + size], to[low * channels : high * channels]
            for c in range(size):
                inner[c] = values[c]
            for c in range(high * channels, run * channels):
                to[c] = 0
        for c in range(used, stride):
            row[c] = 0
    for c in range(count * stride, filled * stride):
        tile[c] = 0


@helper
def _block_of(b: int, RS: int, per_group: int, taps: int, channels: int) -> Ints:
    """Block b: its first tap, number of taps, first channel, number of channels."""
    parts = (per_group + channels - 1) // channels
    tap, channel = b // parts * taps, b % parts * channels
    return tap, min(taps, RS - tap), channel, min(channels, per_group - channel)


@parallel
def pack(w: Array, packed: Array, sizes: Ints, strides: Ints) -> None:
    """packed [groups,panels,blocks,depth,width] of w, whose (group, out, in, tap) steps are ``strides``."""
    groups, panels, blocks, depth, width, outs, ins, RS, taps, channels, joined = sizes
    by_group, by_out, by_in, by_tap = strides
    own_outs, own_ins = outs // joined, ins // joined
    for task in prange(groups * panels * blocks):
        g, panel, b = task // (panels * blocks), task // blocks % panels, task % blocks
        tap0, tap_count, channel0, channel_count = _block_of(b, RS, ins, taps, channels)
        source, out = borrow(w), borrow(packed)[task * depth * width : (task + 1) * depth * width]
        out[:] = 0
        for tap in range(tap_count):
            for c in range(channel_count):
                member, channel = (channel0 + c) // own_ins, (channel0 + c) % own_ins
                at = (g * joined + member) * by_group + channel * by_in + (tap0 + tap) * by_tap
                # of this panel's outputs those of the same group
                first = max(0, member * own_outs - panel * width)
                last = min(width, (member + 1) * own_outs - panel * width)
                to, at = (tap * channel_count + c) * width, at + (panel * width - member * own_outs) * by_out
                for k in range(first, last):
                    out[to + k] = source[at + k * by_out]


@parallel
def gather_product(
    x: Array, packed: Array, bias: Array, y: Array, scratch: Array, places: Array,
    source: Ints, target: Ints, walk: Ints, sizes: Ints, kernel: Ints, tiles: int,
) -> None:  # fmt: skip
    """y = bias + sum over blocks of gathered x times packed weights.

    source (H,W,C) and target (H,W,C,N) as they lie in memory; walk (scale, shift, step, divisor, each
    for h and w); kernel (S, run); ``tiles`` per task. ``scratch`` and ``places`` have a row per chunk.
    """
    groups, panels, blocks, depth, width, outs, ins, RS, taps, channels, _ = sizes
    S, run = kernel
    height, wide, total, N = target
    scale_h, scale_w, shift_h, shift_w, step_h, step_w, divisor_h, divisor_w = walk
    task_rows = tiles * 48
    phases = divisor_h * divisor_w
    per_panel = 0  # tasks
    for p in range(phases):
        high_p = (height - p // divisor_w + divisor_h - 1) // divisor_h
        wide_p = (wide - p % divisor_w + divisor_w - 1) // divisor_w
        per_panel += (N * high_p * wide_p + task_rows - 1) // task_rows
    tasks, chunks = groups * panels * per_panel, scratch.shape[0]
    for chunk in prange(chunks):
        inputs, weights, shifts, outputs = borrow(x), borrow(packed), borrow(bias), borrow(y)
        memory, where = borrow(scratch)[chunk], borrow(places)[chunk]
        tile, sums = memory[: 48 * depth], memory[48 * depth :]
        for task in range(tasks * chunk // chunks, tasks * (chunk + 1) // chunks):
            g, panel, index = task // (panels * per_panel), task // per_panel % panels, task % per_panel
            phase_h, phase_w, high_p, wide_p = 0, 0, 0, 0
            for p in range(phases):
                phase_h, phase_w = p // divisor_w, p % divisor_w
                high_p = (height - phase_h + divisor_h - 1) // divisor_h
                wide_p = (wide - phase_w + divisor_w - 1) // divisor_w
                here = (N * high_p * wide_p + task_rows - 1) // task_rows
                if index < here:
                    break
                index -= here
            rows = min(task_rows, N * high_p * wide_p - index * task_rows)
            phase = (phase_h, phase_w, high_p, wide_p)
            _place(where, rows, index * task_rows, phase, source, target, walk)
            out0 = g * outs + panel * width
            count = min(width, outs - panel * width)
            for t in range(rows):
                line = sums[t * width : (t + 1) * width]
                for k in range(width):
                    line[k] = 0
                if bias.size:
                    values = shifts[out0 : out0 + count]
                    for k in range(count):
                        line[k] = values[k]
            for b in range(blocks):
                block = _block_of(b, RS, ins, taps, channels)
                # Where a divisor is not 1 a block is one tap, which all rows of the phase meet or none.
                r, s = block[0] // S, block[0] % S
                if divisor_h > 1 and (phase_h * scale_h + shift_h + r * step_h) % divisor_h:
                    continue
                if divisor_w > 1 and (phase_w * scale_w + shift_w + s * step_w) % divisor_w:
                    continue
                start = ((g * panels + panel) * blocks + b) * depth * width
                used = _round_up(block[1] * block[3], 6)
                for first in range(0, rows, 48):
                    n_rows = min(48, rows - first)
                    padded = _round_up(n_rows, 4)
                    _gather(
                        tile, used, inputs, where, first, n_rows, padded, block, run, g * ins, source, walk, S
                    )
                    part = sums[first * width : (first + 48) * width]
                    _multiply(tile, used, 1, weights, start, part, padded, used, width)
            for t in range(rows):
                line = sums[t * width : t * width + count]
                at = where[t, 0] * total + out0
                to = outputs[at : at + count]
                for k in range(count):
                    to[k] = line[k]


@parallel
def weight_product(
    x: Array, gy: Array, partial: Array, scratch: Array, places: Array,
    source: Ints, target: Ints, walk: Ints, sizes: Ints, kernel: Ints,
) -> None:  # fmt: skip
    """partial [chunks,groups,panels,blocks,depth,width]: sums over a chunk's rows of gathered x times gy."""
    groups, panels, blocks, depth, width, outs, ins, RS, taps, channels, _ = sizes
    S, run = kernel
    height, wide, total, N = target
    rows, chunks = N * height * wide, partial.shape[0]
    slots, per_chunk = scratch.shape[0], groups * panels * blocks
    phase = (0, 0, height, wide)
    tasks = chunks * per_chunk
    for slot in prange(slots):
        inputs, gradients, totals = borrow(x), borrow(gy), borrow(partial)
        memory, where = borrow(scratch)[slot], borrow(places)[slot]
        tile, right = memory[: 48 * depth], memory[48 * depth :]
        for task in range(tasks * slot // slots, tasks * (slot + 1) // slots):
            chunk, g = task // per_chunk, task // (panels * blocks) % groups
            panel, b = task // blocks % panels, task % blocks
            block = _block_of(b, RS, ins, taps, channels)
            size = depth * width
            sums = totals[chunk, (task % per_chunk) * size : (task % per_chunk + 1) * size]
            sums[:] = 0
            used = _round_up(block[1] * block[3], 4)
            out0 = g * outs + panel * width
            count = min(width, outs - panel * width)
            last = rows * (chunk + 1) // chunks
            for first in range(rows * chunk // chunks, last, 48):
                n_rows = min(48, last - first)
                padded = _round_up(n_rows, 6)
                _place(where, n_rows, first, phase, source, target, walk)
                _gather(tile, used, inputs, where, 0, n_rows, padded, block, run, g * ins, source, walk, S)
                for t in range(n_rows):
                    at = (first + t) * total + out0
                    values, line = gradients[at : at + count], right[t * width : (t + 1) * width]
                    for k in range(count):
                        line[k] = values[k]
                    for k in range(count, width):
                        line[k] = 0
                for k in range(n_rows * width, padded * width):
                    right[k] = 0
                _multiply(tile, 1, used, right, 0, sums, used, padded, width)


@parallel
def sum_weights(partial: Array, gw: Array, sizes: Ints) -> None:
    """gw [K,R·S·C/groups] = the sum of ``partial`` over chunks."""
    groups, panels, blocks, depth, width, outs, ins, RS, taps, channels, joined = sizes
    own_outs, own_ins = outs // joined, ins // joined
    for k in prange(groups * outs):
        sums, to = borrow(partial), borrow(gw)
        g, panel, column = k // outs, k % outs // width, k % outs % width
        member = k % outs // own_outs
        for b in range(blocks):
            tap0, tap_count, channel0, channel_count = _block_of(b, RS, ins, taps, channels)
            start = ((g * panels + panel) * blocks + b) * depth * width + column
            for tap in range(tap_count):
                for c in range(channel_count):
                    channel = channel0 + c - member * own_ins
                    if channel < 0 or channel >= own_ins:
                        continue
                    value = sums[0, start + (tap * channel_count + c) * width]
                    for chunk in range(1, sums.shape[0]):
                        value += sums[chunk, start + (tap * channel_count + c) * width]
                    to[(k * RS + tap0 + tap) * own_ins + channel] = value
