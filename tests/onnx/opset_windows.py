"""Forms of convolution, pooling, normalisation and resizing, through all operator sets."""

from __future__ import annotations

from itertools import product
from math import ceil, floor

import numpy as np
from opset_history import X, f32, form, i64, ints, normal, positive

# ------------------------------------------------------------------------- convolution and pooling


def windows(x, kernel, strides, pads, dilations, out, fill):
    """[N,C,P,Q,R,S]: what every window sees, with ``fill`` around x."""
    (top, left), (p, q) = pads[:2], out
    big = np.full((*x.shape[:2], *(s * o + d * k + n + a for s, o, d, k, n, a in zip(
        strides, out, dilations, kernel, x.shape[2:], pads[:2], strict=True))), fill, x.dtype)  # fmt: skip
    big[:, :, top : top + x.shape[2], left : left + x.shape[3]] = x
    result = np.empty((*x.shape[:2], p, q, *kernel), x.dtype)
    for i, j, r, s in product(range(p), range(q), *map(range, kernel)):
        result[:, :, i, j, r, s] = big[
            :, :, i * strides[0] + r * dilations[0], j * strides[1] + s * dilations[1]
        ]
    return result


def sizes(x, kernel, strides, pads, dilations, up=False):
    """How many windows there are; with ``up`` one more where some of x would be left, if it starts in x."""
    result = []
    for n, k, s, d, a, b in zip(x.shape[2:], kernel, strides, dilations, pads[:2], pads[2:], strict=True):
        span = n + a + b - d * (k - 1) - 1
        count = (ceil(span / s) if up else floor(span / s)) + 1
        result.append(count - (up and (count - 1) * s >= n + a))
    return result


def same(x, kernel, strides, lower=False):
    before, after = [], []
    for n, k, s in zip(x.shape[2:], kernel, strides, strict=True):
        total = max((ceil(n / s) - 1) * s + k - n, 0)
        small, large = total // 2, total - total // 2
        before.append(large if lower else small)
        after.append(small if lower else large)
    return [*before, *after]


def conv(x, w, b=None, strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1), group=1, auto_pad="", **_):
    if auto_pad == "VALID":
        pads = (0, 0, 0, 0)
    elif auto_pad.startswith("SAME"):
        pads = same(x, w.shape[2:], strides, auto_pad == "SAME_LOWER")
    out = sizes(x, w.shape[2:], strides, pads, dilations)
    seen = windows(x, w.shape[2:], strides, pads, dilations, out, 0)
    parts = [
        np.einsum("ncpqrs,kcrs->nkpq", a, k)
        for a, k in zip(np.split(seen, group, 1), np.split(w, group), strict=True)
    ]
    y = np.concatenate(parts, 1)
    return y if b is None else y + b[:, None, None]


def conv_transpose(x, w, b=None, strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1), group=1,
                   output_padding=(0, 0), output_shape=None, **_):  # fmt: skip
    full = [s * (n - 1) + d * (k - 1) + 1 + o for s, n, d, k, o in zip(
        strides, x.shape[2:], dilations, w.shape[2:], output_padding, strict=True)]  # fmt: skip
    if output_shape is not None:  # what is too much goes at both ends, more of it at the start
        total = [f - o for f, o in zip(full, output_shape, strict=True)]
        pads = [*(t - t // 2 for t in total), *(t // 2 for t in total)]
    y = np.zeros((x.shape[0], w.shape[1] * group, *full), x.dtype)
    for g, (a, k) in enumerate(zip(np.split(x, group, 1), np.split(w, group), strict=True)):
        part = y[:, g * w.shape[1] : (g + 1) * w.shape[1]]
        for i, j, r, s in product(range(x.shape[2]), range(x.shape[3]), *map(range, w.shape[2:])):
            part[:, :, i * strides[0] + r * dilations[0], j * strides[1] + s * dilations[1]] += (
                a[:, :, i, j] @ k[:, :, r, s]
            )
    y = y[:, :, pads[0] : full[0] - pads[2], pads[1] : full[1] - pads[3]]
    return y if b is None else y + b[:, None, None]


def conv_transpose_same(x, w, lower, strides, auto_pad):
    """The output is stride times as large; what is too much goes at both ends, more behind or before."""
    total = [s * (n - 1) + k - n * s for s, n, k in zip(strides, x.shape[2:], w.shape[2:], strict=True)]
    small, large = [t // 2 for t in total], [t - t // 2 for t in total]
    full = conv_transpose(x, w, strides=strides, output_padding=[max(-t, 0) for t in total])
    before, after = (large, small) if lower else (small, large)
    ends = [f - max(a, 0) for f, a in zip(full.shape[2:], after, strict=True)]
    return full[:, :, max(before[0], 0) : ends[0], max(before[1], 0) : ends[1]]


def max_pool(
    x, kernel_shape, strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1), ceil_mode=0, auto_pad="", **_
):
    if auto_pad.startswith("SAME"):
        pads = same(x, kernel_shape, strides, auto_pad == "SAME_LOWER")
    out = sizes(x, kernel_shape, strides, pads, dilations, ceil_mode)
    lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    return windows(x, kernel_shape, strides, pads, dilations, out, lowest).max((4, 5))


def max_pool_indices(x, kernel_shape, **options):
    """Where the maxima lie in x laid out row by row."""
    places = np.arange(x.size, dtype=np.float64).reshape(x.shape)
    y = max_pool(x, kernel_shape, **options)
    out = y.shape[2:]
    strides, pads = options.get("strides", (1, 1)), options.get("pads", (0, 0, 0, 0))
    seen = windows(x, kernel_shape, strides, pads, (1, 1), out, -np.inf)
    where = windows(places, kernel_shape, strides, pads, (1, 1), out, -1)
    first = seen.reshape(*y.shape, -1).argmax(-1)[..., None]
    return y, np.take_along_axis(where.reshape(*y.shape, -1), first, -1)[..., 0].astype(np.int64)


def average_pool(x, kernel_shape, strides=(1, 1), pads=(0, 0, 0, 0), dilations=(1, 1), ceil_mode=0,
                 count_include_pad=0, auto_pad="", **_):  # fmt: skip
    if auto_pad.startswith("SAME"):
        pads = same(x, kernel_shape, strides, auto_pad == "SAME_LOWER")
    out = sizes(x, kernel_shape, strides, pads, dilations, ceil_mode)
    counted = np.ones_like(x[:1, :1])
    if count_include_pad:  # padding counts, what ceil_mode adds behind it does not
        counted = np.ones(
            (1, 1, *(n + a + b for n, a, b in zip(x.shape[2:], pads[:2], pads[2:], strict=True)))
        )
    where = (0, 0, 0, 0) if count_include_pad else pads
    count = windows(counted, kernel_shape, strides, where, dilations, out, 0).sum((4, 5))
    return windows(x, kernel_shape, strides, pads, dilations, out, 0).sum((4, 5)) / count


W, B = normal(4, 3, 3, 2, seed=1), normal(4, seed=2)
form("Conv", 1, None, [X, W, B], conv, kernel_shape=[3, 2], pads=[1, 0, 1, 1], strides=[2, 1])
form("Conv", 1, None, [X, W], conv, dilations=[2, 1], pads=[2, 1, 2, 0])
form("Conv", 1, None, [X[:, :2], W[:, :1], B], conv, group=2, auto_pad="SAME_UPPER")
form("Conv", 1, None, [X[:, :2], W[:, :1]], conv, group=2, auto_pad="SAME_LOWER")
form("Conv", 1, None, [X, W], conv, auto_pad="VALID", strides=[1, 2])
T = normal(3, 2, 3, 2, seed=3)
form(
    "ConvTranspose",
    1,
    None,
    [X, T, B[:2]],
    conv_transpose,
    strides=[2, 2],
    pads=[1, 0, 0, 1],
    kernel_shape=[3, 2],
)
form("ConvTranspose", 1, None, [X, T], conv_transpose, strides=[2, 3], output_padding=[1, 2])
form("ConvTranspose", 1, None, [X, T], conv_transpose, strides=[2, 2], output_shape=[10, 8])
for lower in (False, True):
    form("ConvTranspose", 1, None, [X, T],
         lambda x, w, lower=lower, **a: conv_transpose_same(x, w, lower, **a),
         strides=[2, 2], auto_pad="SAME_LOWER" if lower else "SAME_UPPER")  # fmt: skip
form("ConvTranspose", 1, None, [X[:, :2], T[:2]], conv_transpose, group=2, dilations=[2, 1])
for operator, function in (("MaxPool", max_pool), ("AveragePool", average_pool)):
    form(operator, 1, None, [X], function, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1])
    form(operator, 1, None, [X], function, kernel_shape=[2, 3], strides=[2, 2], auto_pad="SAME_UPPER")
    form(operator, 1, None, [X], function, kernel_shape=[2, 3], auto_pad="SAME_LOWER")
    form(operator, 10, None, [X], function, kernel_shape=[2, 2], strides=[3, 3], ceil_mode=1)
    form(
        operator, 10, None, [X], function, kernel_shape=[2, 2], strides=[3, 3], ceil_mode=1, pads=[1, 1, 1, 1]
    )
form(
    "MaxPool", 8, None, [X], max_pool_indices, outputs=2, kernel_shape=[3, 2], strides=[2, 1], storage_order=0
)
form("MaxPool", 10, None, [X], max_pool, kernel_shape=[2, 2], dilations=[3, 2])
form(
    "MaxPool", 12, None, [ints(1, 2, 4, 4, dtype=np.uint8)], max_pool, kernel_shape=[2, 2], pads=[1, 1, 0, 0]
)
form("MaxPool", 12, None, [ints(1, 2, 4, 4, dtype=np.int8)], max_pool, kernel_shape=[2, 2])
form("AveragePool", 7, None, [X], average_pool, kernel_shape=[3, 2], pads=[1, 0, 1, 1], count_include_pad=1)
form("AveragePool", 10, None, [X], average_pool, kernel_shape=[2, 2], strides=[3, 3], ceil_mode=1,
     pads=[1, 1, 1, 1],
     count_include_pad=1)  # fmt: skip
form("AveragePool", 19, None, [X], average_pool, kernel_shape=[2, 2], dilations=[3, 2], pads=[1, 0, 1, 0])
form("GlobalAveragePool", 1, None, [X], lambda x: x.mean((2, 3), keepdims=True))
form("GlobalMaxPool", 1, None, [X], lambda x: x.max((2, 3), keepdims=True))

# ------------------------------------------------------------------------------------ normalisation


def batch_norm(x, s, b, m, v, epsilon=1e-5, **_):
    if s.ndim == 1:
        s, b, m, v = (a[:, None, None] for a in (s, b, m, v))
    return (x - m) / np.sqrt(v + epsilon) * s + b


MOMENTS = [normal(3, seed=1), normal(3, seed=2), normal(3, seed=3), positive(3, seed=4)]
PIXELS = [
    normal(3, 5, 4, seed=1),
    normal(3, 5, 4, seed=2),
    normal(3, 5, 4, seed=3),
    positive(3, 5, 4, seed=4),
]
form("BatchNormalization", 1, 6, [X, *MOMENTS], batch_norm, is_test=1, epsilon=1e-3)
form("BatchNormalization", 1, 6, [X, *MOMENTS], batch_norm, is_test=1, spatial=1, momentum=0.8)
form("BatchNormalization", 1, 6, [X, *PIXELS], batch_norm, is_test=1, spatial=0)
form("BatchNormalization", 7, 8, [X, *PIXELS], batch_norm, spatial=0, note="it takes the mean of all pixels")
form("BatchNormalization", 7, None, [X, *MOMENTS], batch_norm, momentum=0.8, epsilon=1e-3)
form("BatchNormalization", 14, None, [X, *MOMENTS], batch_norm, training_mode=0)


def instance_norm(x, s, b, epsilon=1e-5, **_):
    m, v = x.mean((2, 3), keepdims=True), x.var((2, 3), keepdims=True)
    return (x - m) / np.sqrt(v + epsilon) * s[:, None, None] + b[:, None, None]


def layer_norm(x, s, b=None, axis=-1, epsilon=1e-5):
    axes = tuple(range(axis % x.ndim, x.ndim))
    y = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + epsilon) * s
    return y if b is None else y + b


def lrn(x, size, alpha=1e-4, beta=0.75, bias=1.0):
    squares, y = np.zeros_like(x), x.shape[1]
    for c in range(y):
        lo, hi = max(0, c - floor((size - 1) / 2)), min(y - 1, c + ceil((size - 1) / 2))
        squares[:, c] = (x[:, lo : hi + 1] ** 2).sum(1)
    return x / (bias + alpha / size * squares) ** beta


form("InstanceNormalization", 1, None, [X, *MOMENTS[:2]], instance_norm, epsilon=1e-2)
form("LayerNormalization", 17, None, [X, normal(4, seed=1), normal(4, seed=2)], layer_norm)
form("LayerNormalization", 17, None, [X, normal(5, 4, seed=1)], layer_norm, axis=2, epsilon=1e-2)
form(
    "LayerNormalization",
    17,
    None,
    [X, normal(4, seed=1)],
    lambda x, s, stash_type: layer_norm(x, s),
    stash_type=1,
)
form("LRN", 1, None, [normal(2, 7, 3, 3)], lrn, size=5, alpha=0.5, beta=0.5, bias=2.0)
form("LRN", 1, None, [normal(2, 7, 3, 3)], lrn, size=3)

# ------------------------------------------------------------------------------------------- resize


def interpolated(x, out, scale, where, mode="linear", nearest=None):
    """x [N,C,H,W] at ``where(place, scale, size in, size out)`` along both last axes."""
    y = x.astype(np.float64)
    for axis, (n, o, s) in enumerate(zip(x.shape[2:], out, scale, strict=True), start=2):
        at = np.array([where(i, s, n, o) for i in range(o)])
        if mode == "nearest":
            y = y.take(np.clip(nearest(at).astype(int), 0, n - 1), axis)
        else:
            low = np.floor(at).astype(int)
            part = (at - low).reshape(-1, *[1] * (3 - axis))
            y = (1 - part) * y.take(low.clip(0, n - 1), axis) + part * y.take((low + 1).clip(0, n - 1), axis)
    return y.astype(x.dtype)


def asymmetric(i, s, n, o):
    return min(i / s, n - 1)


def half_pixel(i, s, n, o):
    return (i + 0.5) / s - 0.5


def align_corners(i, s, n, o):
    return i * (n - 1) / (o - 1)


def pytorch_half_pixel(i, s, n, o):
    return (i + 0.5) / s - 0.5 if o > 1 else 0


def half_pixel_symmetric(i, s, n, o):
    exact = n * s
    return n / 2 * (1 - o / exact) + (i + 0.5) / s - 0.5


def round_half_down(at):
    return np.ceil(at - 0.5)


def resized(where, mode, nearest=None, scales=None, out=None):
    def expected(x, *_, **__):
        ratio = scales or [o / n for o, n in zip(out, x.shape[2:], strict=True)]
        size = out or [floor(n * r) for n, r in zip(x.shape[2:], ratio, strict=True)]
        return interpolated(x, size, ratio, where, mode, nearest)

    return expected


UP, DOWN = f32(1, 1, 2, 3), f32(1, 1, 0.6, 0.5)
for mode in ("nearest", "linear"):
    said = "bilinear" if mode == "linear" else mode
    old = resized(asymmetric, mode, np.floor, [2, 3])
    form("Upsample", 1, 6, [X], old, mode=said, height_scale=2.0, width_scale=3.0)
    form("Upsample", 7, 8, [X], old, mode=mode, scales=[1.0, 1.0, 2.0, 3.0])
    form("Upsample", 9, 9, [X, UP], old, mode=mode)
    form("Resize", 10, 10, [X, UP], old, mode=mode)
    form("Resize", 10, 10, [X, DOWN], resized(asymmetric, mode, np.ceil, [np.float32(0.6), 0.5]), mode=mode)
NO = np.zeros(0, np.float32)
MODES = {
    "half_pixel": half_pixel, "asymmetric": asymmetric, "align_corners": align_corners,
    "pytorch_half_pixel": pytorch_half_pixel,
}  # fmt: skip
for name, where in MODES.items():
    for mode in ("nearest", "linear"):
        expected = resized(where, mode, round_half_down, out=[7, 6])
        form("Resize", 11, 12, [X, NO, NO, i64(2, 3, 7, 6)], expected, mode=mode,
             coordinate_transformation_mode=name)  # fmt: skip
        form("Resize", 13, None, [X, None, None, i64(2, 3, 7, 6)], expected, mode=mode,
             coordinate_transformation_mode=name)  # fmt: skip
for rounding, nearest in (("floor", np.floor), ("ceil", np.ceil), ("round_prefer_floor", round_half_down),
                          ("round_prefer_ceil", lambda at: np.floor(at + 0.5))):  # fmt: skip
    form("Resize", 11, None, [X, NO, UP], resized(half_pixel, "nearest", nearest, [2, 3]), mode="nearest",
         nearest_mode=rounding)  # fmt: skip
form("Resize", 13, None, [X, None, UP], resized(half_pixel, "linear", None, [2, 3]), mode="linear")
form("Resize", 13, None, [X, None, None, i64(2, 3, 3, 2)], resized(half_pixel, "linear", None, out=[3, 2]),
     mode="linear")  # fmt: skip
form(
    "Resize",
    18,
    None,
    [X, None, f32(2, 3)],
    resized(half_pixel, "linear", None, [2, 3]),
    mode="linear",
    axes=[2, 3],
)
form("Resize", 18, None, [X, None, None, i64(9, 9)], resized(half_pixel, "linear", None, [9 / 5, 9 / 5]),
     mode="linear", axes=[2, 3], keep_aspect_ratio_policy="not_larger")  # fmt: skip
form("Resize", 19, None, [X, None, f32(1, 1, 1.5, 0.7)],
     resized(half_pixel_symmetric, "linear", None, [1.5, float(np.float32(0.7))]), mode="linear",
     coordinate_transformation_mode="half_pixel_symmetric")  # fmt: skip


def antialiased(x, out, scale):
    """Linear, with a triangle as wide as the scale says; places outside are the edge."""
    y = x.astype(np.float64)
    for axis, (n, o, s) in enumerate(zip(x.shape[2:], out, scale, strict=True), start=2):
        weights = np.zeros((o, n))
        for i in range(o):
            at = (i + 0.5) / s - 0.5
            for k in range(floor(at - 1 / s), ceil(at + 1 / s) + 1):
                weights[i, min(max(k, 0), n - 1)] += max(1 - abs(k - at) * min(s, 1), 0)
        weights /= weights.sum(1, keepdims=True)
        y = np.moveaxis(np.tensordot(weights, y, (1, axis)), 0, axis)
    return y.astype(x.dtype)


def cubic(x, out, scale, a=-0.75, exclude=False):
    """Keys' cubic, half pixels; places outside are the edge, or do not count."""
    y = x.astype(np.float64)
    for axis, (n, o, s) in enumerate(zip(x.shape[2:], out, scale, strict=True), start=2):
        weights = np.zeros((o, n))
        for i in range(o):
            at = (i + 0.5) / s - 0.5
            for k in range(floor(at) - 1, floor(at) + 3):
                d = abs(at - k)
                w = (
                    ((a + 2) * d - (a + 3)) * d * d + 1
                    if d <= 1
                    else ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
                )
                if 0 <= k < n or not exclude:
                    weights[i, min(max(k, 0), n - 1)] += w
        weights /= weights.sum(1, keepdims=True)
        y = np.moveaxis(np.tensordot(weights, y, (1, axis)), 0, axis)
    return y.astype(x.dtype)


def cropped(x, roi, scales, extrapolation_value=0.0, **_):
    """tf_crop_and_resize: a part of x, and a value beyond it."""
    y = x.astype(np.float64)
    beyond = np.zeros(x.shape, bool)
    for axis in (2, 3):
        n = x.shape[axis]
        o = floor(n * scales[axis])
        start, end = roi[axis], roi[4 + axis]
        at = np.array([start * (n - 1) + i * (end - start) * (n - 1) / (o - 1) for i in range(o)])
        low = np.floor(at).astype(int)
        part = (at - low).reshape(-1, *[1] * (3 - axis))
        outside = ((at < 0) | (at > n - 1)).reshape(-1, *[1] * (3 - axis))
        beyond = beyond.take(np.zeros(o, int), axis) | outside
        y = (1 - part) * y.take(low.clip(0, n - 1), axis) + part * y.take((low + 1).clip(0, n - 1), axis)
    return np.where(beyond, extrapolation_value, y).astype(x.dtype)


TWICE = f32(1, 1, 2, 2)
form("Resize", 11, None, [X, NO, TWICE], lambda x, r, s, mode: cubic(x, [10, 8], [2, 2]), mode="cubic")
form("Resize", 11, None, [X, NO, TWICE], lambda x, r, s, mode, cubic_coeff_a: cubic(x, [10, 8], [2, 2], -0.5),
     mode="cubic", cubic_coeff_a=-0.5)  # fmt: skip
form("Resize", 11, None, [X, NO, TWICE],
     lambda x, r, s, mode, exclude_outside: cubic(x, [10, 8], [2, 2], exclude=True),
     mode="cubic", exclude_outside=1)  # fmt: skip
form("Resize", 11, None, [X, f32(0, 0, 0.2, 0.1, 1, 1, 1.3, 0.8), f32(1, 1, 1.6, 1.5)],
     cropped, mode="linear",
     coordinate_transformation_mode="tf_crop_and_resize", extrapolation_value=7.5)  # fmt: skip
HALF = f32(1, 1, 0.5, 0.5)
form("Resize", 18, None, [X, None, HALF], lambda x, r, s, mode, antialias: antialiased(x, [2, 2], [0.5, 0.5]),
     mode="linear", antialias=1)  # fmt: skip
