"""Forms of arithmetic, shapes, reductions and constants, through all operator sets."""

from __future__ import annotations

from math import ceil, erf

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from opset_history import A2, B2, C2, X, f32, form, i64, ints, normal, positive
from opset_windows import MOMENTS

# -------------------------------------------------------------------------------------- elementwise


def spread(b, a, axis):
    """b with axes of size 1 behind, so that its first lies at ``axis`` of a."""
    return b.reshape(*b.shape, *[1] * (a.ndim - b.ndim - axis % a.ndim))


def aligned(function):
    """What an elementwise operator said until operator set 6."""

    def expected(a, b, broadcast=0, axis=None):
        return function(a, b if axis is None else spread(b, a, axis))

    return expected


def soft(x, axis=1):
    """Until operator set 12 all axes from ``axis`` on were one."""
    axes = tuple(range(axis % x.ndim, x.ndim))
    e = np.exp(x - x.max(axes, keepdims=True))
    return e / e.sum(axes, keepdims=True)


def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def prelu(x, slope):
    return np.where(x < 0, x * slope, x)


form("Relu", 1, None, [X], lambda x: np.maximum(x, 0))
form("Relu", 14, None, [np.int32([-2, 3])], lambda x: np.maximum(x, 0))
form("LeakyRelu", 1, None, [X], lambda x, alpha=0.01: np.where(x < 0, alpha * x, x))
form("LeakyRelu", 1, None, [X], lambda x, alpha=0.01: np.where(x < 0, alpha * x, x), alpha=0.3)
form("PRelu", 1, 6, [X, MOMENTS[0]], lambda x, s: prelu(x, s[:, None, None]))
form("PRelu", 1, 6, [X, f32(0.2)], prelu)
form("PRelu", 7, None, [X, MOMENTS[0][:, None, None]], prelu)
form("PRelu", 7, None, [X, normal(1, 4, seed=5)], prelu)
form("PRelu", 9, None, [np.int32([[-2, 3]]), np.int32([4])], prelu)
form("Sigmoid", 1, None, [X], lambda x: 1 / (1 + np.exp(-x)))
form("HardSigmoid", 1, None, [X], lambda x, alpha=0.2, beta=0.5: np.clip(alpha * x + beta, 0, 1))
form(
    "HardSigmoid", 1, None, [X], lambda x, alpha, beta: np.clip(alpha * x + beta, 0, 1), alpha=0.5, beta=0.25
)
form("HardSwish", 14, None, [3 * X], lambda x: x * np.clip(x / 6 + 0.5, 0, 1))
form("Tanh", 1, None, [X], np.tanh)
form("Elu", 1, None, [X], lambda x, alpha=1.0: np.where(x < 0, alpha * np.expm1(x), x))
form("Elu", 1, None, [X], lambda x, alpha=1.0: np.where(x < 0, alpha * np.expm1(x), x), alpha=0.7)
form("Clip", 1, 10, [X], lambda x, min, max: np.clip(x, min, max), min=-0.5, max=0.25)
form("Clip", 1, 10, [X], lambda x, max: np.minimum(x, np.float32(max)), max=0.25)
form("Clip", 6, 10, [X], lambda x, min: np.maximum(x, np.float32(min)), min=-0.5)
form("Clip", 11, None, [X, np.float32(-0.5), np.float32(0.25)], np.clip)
form("Clip", 11, None, [X, None, np.float32(0.25)], lambda x, lo, hi: np.minimum(x, hi))
form("Clip", 11, None, [X], lambda x: x)
form("Clip", 12, None, [ints(2, 3), np.int64(3), np.int64(6)], np.clip)
form("Softmax", 1, 12, [X], soft)
form("Softmax", 1, 12, [X], soft, axis=2)
form("Softmax", 11, 12, [X], soft, axis=-2)
form("Softmax", 13, None, [X], softmax)
form("Softmax", 13, None, [X], softmax, axis=1)
form("LogSoftmax", 1, 12, [X], lambda x, axis=1: np.log(soft(x, axis)))
form("LogSoftmax", 1, 12, [X], lambda x, axis: np.log(soft(x, axis)), axis=2)
form("LogSoftmax", 11, 12, [X], lambda x, axis: np.log(soft(x, axis)), axis=-2)
form("LogSoftmax", 13, None, [X], lambda x, axis=-1: np.log(softmax(x, axis)))
form("LogSoftmax", 13, None, [X], lambda x, axis: np.log(softmax(x, axis)), axis=1)
form("Erf", 9, None, [X], np.vectorize(erf, otypes=[np.float32]))
for operator, function in {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}.items():
    form(operator, 1, None, [X, positive(2, 3, 5, 4, seed=1)], function)
    form(operator, 1, 6, [X, positive(3, 5, seed=1)], aligned(function), broadcast=1, axis=1)
    form(operator, 1, 6, [X, positive(5, 4, seed=1)], aligned(function), broadcast=1)
    form(operator, 1, 6, [X, positive(1, seed=1)], aligned(function), broadcast=1)
    form(operator, 7, None, [positive(3, 1, 4, seed=1), positive(5, 1, seed=2)], function)
    whole = np.floor_divide if operator == "Div" else function
    form(operator, 7, None, [ints(2, 3), ints(3, seed=1)], whole)
    form(operator, 14, None, [ints(2, 3, dtype=np.uint8), ints(3, dtype=np.uint8)], whole)
form("Sum", 1, None, [X, X, 2 * X], lambda *xs: sum(xs))
form("Sum", 1, None, [X], lambda x: x)
form("Sum", 8, None, [X, X[:, :1], X[:1, :, :1]], lambda *xs: xs[0] + xs[1] + xs[2])
form("Neg", 1, None, [X], np.negative)
form("Neg", 6, None, [np.int32([1, -2])], np.negative)
form("Sqrt", 1, None, [positive(2, 3)], np.sqrt)
form("Exp", 1, None, [X], np.exp)
form("Abs", 1, None, [X], np.abs)
form("Abs", 6, None, [np.int8([1, -2])], np.abs)
form("Ceil", 1, None, [3 * X], np.ceil)
form("Pow", 1, None, [positive(2, 3), normal(2, 3)], np.power)
form("Pow", 1, 6, [positive(2, 3, 4), normal(2, 3)], aligned(np.power), broadcast=1, axis=0)
form("Pow", 7, None, [positive(2, 3), f32(2)], np.power)
form("Pow", 12, None, [positive(2, 3), ints(3)], lambda a, b: np.power(a, b.astype(np.float32)))
form("Pow", 12, None, [ints(2, 3), ints(3) % 3], np.power)
form("Mod", 10, None, [np.int64([-5, 5, 7]), np.int64([3, -3, 4])], np.mod)
form("Mod", 10, None, [f32(-5.5, 5.5), f32(3, -3)], lambda a, b, fmod: np.fmod(a, b), fmod=1)
form("Mod", 10, None, [np.int32([[-5, 5]]), np.int32([[3], [4]])], lambda a, b, fmod: np.fmod(a, b), fmod=1)
for operator, function in {"Max": np.maximum, "Min": np.minimum}.items():
    form(operator, 1, None, [X, X[::-1].copy(), 0.5 * X], lambda a, b, c, f=function: f(f(a, b), c))
    form(operator, 1, None, [X], lambda a: a)
    form(operator, 8, None, [X, X[:, :1, :1]], function)
    form(operator, 12, None, [ints(2, 3), ints(3, seed=1)], function)
    form(operator, 12, None, [ints(2, 3, dtype=np.int8), ints(3, dtype=np.int8, seed=1)], function)
form("Where", 9, None, [X[0, 0] > 0, X[0], X[1, :1]], np.where)
form("Where", 9, None, [ints(2, 3) > 4, ints(2, 3), ints(1)], np.where)
form("Equal", 1, 6, [ints(2, 3, 4) % 2, ints(3) % 2], aligned(np.equal), broadcast=1, axis=1)
form("Equal", 1, None, [ints(2, 3) % 2, ints(2, 3, seed=1) % 2], np.equal)
form("Equal", 1, None, [ints(2, 3) > 4, ints(2, 3, seed=1) > 4], np.equal)
form("Equal", 7, None, [ints(2, 3, dtype=np.int32) % 2, ints(3, dtype=np.int32) % 2], np.equal)
form("Equal", 11, None, [np.round(X), np.round(X[:, :1])], np.equal)

# ------------------------------------------------------------------------------------------- linear


def gemm(a, b, c=None, alpha=1.0, beta=1.0, transA=0, transB=0, broadcast=0):
    y = alpha * ((a.T if transA else a) @ (b.T if transB else b))
    return y if c is None else y + beta * c


form("Gemm", 1, None, [A2, B2, C2], gemm, alpha=0.5, beta=2.0)
form("Gemm", 1, None, [A2.T.copy(), B2.T.copy(), C2], gemm, transA=1, transB=1)
form("Gemm", 1, 6, [A2, B2, C2[0]], gemm, broadcast=1)
form("Gemm", 7, None, [A2, B2, C2[0]], gemm)
form("Gemm", 7, None, [A2, B2, C2[:, :1]], gemm, beta=0.5)
form("Gemm", 11, None, [A2, B2], gemm, alpha=2.0)
form("MatMul", 1, None, [A2, B2], np.matmul)
form("MatMul", 1, None, [X, normal(4, 2, seed=3)], np.matmul)
form("MatMul", 1, None, [X, normal(3, 4, 2, seed=3)], np.matmul)
form("MatMul", 1, None, [X, normal(4, seed=3)], np.matmul)
form("MatMul", 9, None, [ints(2, 3, dtype=np.int32), ints(3, 2, dtype=np.int32)], np.matmul)

# -------------------------------------------------------------------------------------------- shape


def flatten(x, axis=1):
    return x.reshape(int(np.prod(x.shape[: axis % x.ndim if axis < 0 else axis])), -1)


def squeezed(x, axes=None):
    return x.squeeze(tuple(axes) if axes is not None else None)


def split(x, sizes=None, axis=0, split=None, parts=2, num_outputs=None):
    sizes = split if sizes is None else sizes
    if sizes is None:
        each = ceil(x.shape[axis] / parts)
        sizes = [min(each, x.shape[axis] - i * each) for i in range(parts)]
    return np.split(x, np.cumsum(sizes)[:-1], axis)


def sliced(x, starts, ends, axes=None, steps=None):
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    where = [slice(None)] * x.ndim
    for a, b, axis, step in zip(starts, ends, axes, steps, strict=True):
        where[axis] = slice(int(a), int(b) if step > 0 or b >= -x.shape[axis] else None, int(step))
    return x[tuple(where)]


def padded(x, pads, value=None, axes=None, mode="constant"):
    axes = range(x.ndim) if axes is None else axes
    widths = [(0, 0)] * x.ndim
    for i, axis in enumerate(axes):
        widths[axis] = (int(pads[i]), int(pads[len(pads) // 2 + i]))
    more = {"constant_values": 0 if value is None else value} if mode == "constant" else {}
    return np.pad(x, widths, mode=mode, **more)


form("Reshape", 1, 4, [X], lambda x, shape: x.reshape(2, 3, 20), shape=[0, 3, -1])
form("Reshape", 5, None, [X, i64(0, -1, 4)], lambda x, shape: x.reshape(2, 15, 4))
form("Reshape", 14, None, [np.zeros((0, 3), np.float32), i64(3, 0)], lambda x, s, allowzero: x.reshape(3, 0),
     allowzero=1)  # fmt: skip
form("Flatten", 1, None, [X], flatten)
form("Flatten", 1, None, [X], flatten, axis=2)
form("Flatten", 1, None, [X], flatten, axis=0)
form("Flatten", 9, None, [ints(2, 3, 4)], flatten)
form("Flatten", 11, None, [X], flatten, axis=-1)
form("Transpose", 1, None, [X], lambda x: x.T)
form("Transpose", 1, None, [X], lambda x, perm: x.transpose(perm), perm=[0, 2, 3, 1])
form("Transpose", 1, None, [ints(2, 3, dtype=np.int8)], lambda x: x.T)
ONES = normal(1, 3, 1, 2)
form("Squeeze", 1, 12, [ONES], squeezed, axes=[0, 2])
form("Squeeze", 1, None, [ONES], squeezed)
form("Squeeze", 11, 12, [ONES], squeezed, axes=[-2])
form("Squeeze", 13, None, [ONES, i64(0, -2)], squeezed)
form("Unsqueeze", 1, 12, [A2], lambda x, axes: x[None, :, :, None], axes=[0, 3])
form("Unsqueeze", 1, 12, [A2], lambda x, axes: x[None, :, :, None], axes=[3, 0])
form("Unsqueeze", 11, 12, [A2], lambda x, axes: x[:, None, :, None], axes=[-1, 1])
form("Unsqueeze", 13, None, [A2, i64(-1, 1)], lambda x, axes: x[:, None, :, None])
form("Concat", 1, 3, [X, X], lambda *xs: np.concatenate(xs, 1))
form("Concat", 1, None, [X, X[:, :, :1]], lambda *xs, axis: np.concatenate(xs, axis), axis=2)
form("Concat", 4, None, [ints(2, 3), ints(1, 3)], lambda *xs, axis: np.concatenate(xs, axis), axis=0)
form("Concat", 11, None, [X, X], lambda *xs, axis: np.concatenate(xs, axis), axis=-1)
form("Split", 1, 12, [X], split, outputs=2, axis=2, split=[2, 3])
form("Split", 1, 1, [X, f32(2, 3)], lambda x, sizes, axis: split(x, [2, 3], axis), outputs=2, axis=2)
form("Split", 1, 17, [X], split, outputs=2, axis=3)
form("Split", 2, 17, [X], split, outputs=2)
form("Split", 11, 17, [X], split, outputs=2, axis=-1)
form("Split", 13, None, [X, i64(1, 4)], split, outputs=2, axis=2)
form("Split", 18, None, [X], split, outputs=2, axis=2, num_outputs=2)
form("Slice", 1, 9, [X], sliced, starts=[0, 1, -2], ends=[1, 3, 1000])
form("Slice", 1, 9, [X], sliced, starts=[1, -3], ends=[-1, 2], axes=[2, 3])
form("Slice", 10, None, [X, i64(0, 1), i64(1, 1000)], sliced)
form("Slice", 10, None, [X, i64(1, 3), i64(4, -1000), i64(2, 3), i64(2, -1)], sliced)
form("Slice", 11, None, [X, np.int32([1]), np.int32([-1]), np.int32([-2])], sliced)
form("Gather", 1, None, [X, i64(2, 0)], lambda x, i, axis: x.take(i, axis), axis=1)
form("Gather", 1, None, [X, np.int32([[1, 0]])], lambda x, i: x.take(i, 0))
form("Gather", 1, None, [ints(4), np.array(2)], lambda x, i: x.take(i, 0))
form("Gather", 11, None, [X, i64(-1, 0)], lambda x, i, axis: x.take(i, axis), axis=-1)
form(
    "Pad", 1, 1, [A2], lambda x, paddings, value: padded(x, paddings, value), paddings=[0, 1, 2, 0], value=1.5
)
for mode in ("constant", "reflect", "edge"):
    form("Pad", 1, 1, [X], lambda x, paddings, mode: padded(x, paddings, mode=mode), mode=mode,
         paddings=[0, 0, 1, 2, 0, 0, 3, 1])  # fmt: skip
    form("Pad", 2, 10, [X], padded, mode=mode, pads=[0, 0, 1, 2, 0, 0, 3, 1])
    form("Pad", 11, None, [X, i64(0, 0, 1, 2, 0, 0, 3, 1)], padded, mode=mode)
form("Pad", 2, 10, [A2], padded, pads=[0, 1, 2, 0], value=1.5)
form("Pad", 2, 10, [X], lambda x, pads: x[:, :, 1:, :-1], pads=[0, 0, -1, 0, 0, 0, 0, -1])
form("Pad", 11, None, [A2, i64(0, 1, 2, 0), np.float32(1.5)], padded)
form("Pad", 11, None, [ints(2, 3), i64(0, 1, 2, 0), np.int64(7)], padded)
form("Pad", 18, None, [X, i64(1, 2, 3, 0), np.float32(1.5), i64(2, -1)], padded)
form("Pad", 19, None, [X, i64(0, 0, 1, 2, 0, 0, 3, 1)], padded, mode="wrap")
form("Expand", 8, None, [normal(3, 1), i64(2, 1, 4)], lambda x, s: np.broadcast_to(x, (2, 3, 4)))
form("Expand", 8, None, [ints(3, 1), i64(1)], lambda x, s: x)


def depth_to_space(x, blocksize, mode="DCR"):
    n, c, h, w = x.shape
    b, k = blocksize, c // blocksize**2
    if mode == "DCR":
        y = x.reshape(n, b, b, k, h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        y = x.reshape(n, k, b, b, h, w).transpose(0, 1, 4, 2, 5, 3)
    return y.reshape(n, k, h * b, w * b)


form("DepthToSpace", 1, None, [normal(2, 8, 2, 3)], depth_to_space, blocksize=2)
form("DepthToSpace", 11, None, [normal(2, 8, 2, 3)], depth_to_space, blocksize=2, mode="CRD")
form("DepthToSpace", 11, None, [normal(2, 8, 2, 3)], depth_to_space, blocksize=2, mode="DCR")
form("Identity", 1, None, [X], lambda x: x)
form("Identity", 1, None, [ints(2, 3)], lambda x: x)
form("Shape", 1, None, [X], lambda x: i64(*x.shape))
form("Shape", 15, None, [X], lambda x, start, end: i64(3, 5), start=1, end=-1)
form("Shape", 15, None, [X], lambda x, start: i64(4), start=-1)
form("ConstantOfShape", 9, None, [i64(2, 3)], lambda s: np.zeros((2, 3), np.float32))
form(
    "ConstantOfShape",
    9,
    None,
    [i64(2, 3)],
    lambda s, value: np.full((2, 3), 7),
    value=numpy_helper.from_array(i64(7)),
)
form("ConstantOfShape", 9, None, [np.zeros(0, np.int64)], lambda s: np.zeros((), np.float32))
form("Constant", 1, None, [], lambda value: A2, value=numpy_helper.from_array(A2))
form("Constant", 1, None, [], lambda value: ints(3), value=numpy_helper.from_array(ints(3)))
SPARSE = helper.make_sparse_tensor(
    numpy_helper.from_array(f32(2, -1), "v"), numpy_helper.from_array(i64(1, 5)), [2, 3]
)
form("Constant", 11, None, [], lambda sparse_value: f32(0, 2, 0, 0, 0, -1).reshape(2, 3), sparse_value=SPARSE,
     note="it hands out a sparse tensor")  # fmt: skip
form("Constant", 12, None, [], lambda value_float: np.float32(1.5), value_float=1.5)
form("Constant", 12, None, [], lambda value_floats: f32(1.5, 2), value_floats=[1.5, 2.0])
form("Constant", 12, None, [], lambda value_int: np.int64(3), value_int=3)
form("Constant", 12, None, [], lambda value_ints: i64(3, 4), value_ints=[3, 4])
form("Cast", 1, 5, [3 * X], lambda x, to: x.astype(np.int32), to="INT32")
form("Cast", 1, 5, [ints(2, 3)], lambda x, to: x.astype(np.float32), to="FLOAT")
for kind, dtype in {
    TensorProto.INT64: np.int64,
    TensorProto.DOUBLE: np.float64,
    TensorProto.BOOL: np.bool_,
}.items():
    form("Cast", 6, None, [3 * X], lambda x, to, d=dtype: x.astype(d), to=kind)
form("Cast", 6, None, [ints(2, 3)], lambda x, to: x.astype(np.uint8), to=TensorProto.UINT8)
form("Cast", 19, None, [A2], lambda x, to, saturate: x.astype(np.int32), to=TensorProto.INT32, saturate=0,
     note="it takes saturate for 8-bit floats only")  # fmt: skip
form("Cast", 24, None, [A2], lambda x, to, round_mode: x.astype(np.int32),
     to=TensorProto.INT32, round_mode="up",
     note="it takes round_mode for 8-bit floats only")  # fmt: skip

# --------------------------------------------------------------------------------------- reductions
for operator, function in {"ReduceMean": np.mean, "ReduceSum": np.sum, "ReduceMax": np.max}.items():
    inputs_from = 13 if operator == "ReduceSum" else 18

    def reduced(x, listed=None, axes=None, keepdims=1, noop_with_empty_axes=0, f=function):
        axes = listed if axes is None else axes
        if (axes is None or len(axes) == 0) and noop_with_empty_axes:
            return x
        where = tuple(int(a) for a in axes) if axes is not None and len(axes) else None
        return np.asarray(f(x, axis=where, keepdims=bool(keepdims)))

    form(operator, 1, None, [X], reduced)
    form(operator, 1, None, [X], reduced, keepdims=0)
    form(operator, 1, inputs_from - 1, [X], reduced, axes=[1, 3])
    form(operator, 1, inputs_from - 1, [X], reduced, axes=[2], keepdims=0)
    form(operator, 11, inputs_from - 1, [X], reduced, axes=[-1])
    form(operator, inputs_from, None, [X, i64(1, -1)], reduced)
    form(operator, inputs_from, None, [X, i64(2)], reduced, keepdims=0)
    form(operator, inputs_from, None, [X], reduced, noop_with_empty_axes=1)
    form(operator, inputs_from, None, [X, np.zeros(0, np.int64)], reduced, noop_with_empty_axes=1)
    if operator != "ReduceMean":
        form(operator, 1, None, [ints(2, 3)], reduced, keepdims=0)
form("ReduceMax", 12, 17, [ints(2, 3, dtype=np.int8)], lambda x, axes: x.max(1, keepdims=True), axes=[1])
form("ReduceMax", 20, None, [ints(2, 3) > 4, i64(1)], lambda x, axes: x.max(1, keepdims=True))

# ------------------------------------------------------------------------------------------ dropout
form("Dropout", 1, 6, [X], lambda x, **_: x, is_test=1, ratio=0.4)
form("Dropout", 1, 6, [X], lambda x, **_: x, is_test=1)
form("Dropout", 7, 11, [X], lambda x, ratio=0.5: x, ratio=0.4)
form("Dropout", 7, None, [X], lambda x: x)
form(
    "Dropout",
    10,
    11,
    [X],
    lambda x: (x, np.ones(x.shape, bool)),
    outputs=2,
    note="its mask is nothing but False",
)
form("Dropout", 12, None, [X], lambda x: (x, np.ones(x.shape, bool)), outputs=2)
form("Dropout", 12, None, [X], lambda x, seed: x, seed=5)
form("Dropout", 12, None, [X, np.float32(0.4), np.array(False)], lambda *xs: xs[0])
form("Dropout", 12, None, [X, np.float32(0.4)], lambda *xs: xs[0])
