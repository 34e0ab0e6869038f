"""Normalisation within one sample: layer, group and instance normalisation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np

from nnlite import memory
from nnlite.errors import DTypeError, ShapeError
from nnlite.kernels import launch
from nnlite.layout import Array, as_array
from nnlite.node import Node
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
from nnlite.ops.softmax import lines

Axes = tuple[int, ...]


def _check(op: str, x: ArrayType, wanted: Axes, weight: ArrayType | None, bias: ArrayType | None) -> None:
    for name, operand in (("weight", weight), ("bias", bias)):
        if operand is not None and operand.shape != wanted:
            raise ShapeError(
                f"{op}: {name} has shape {list(operand.shape)} but x {list(x.shape)} needs {list(wanted)}"
            )
    types = {t.dtype for t in (x, weight, bias) if t is not None}
    if len(types) != 1 or x.dtype.kind != "f":
        listed = ", ".join(sorted(map(str, types)))
        raise DTypeError(f"{op}: operands are {listed}; all must have one floating-point type")


def _normalise(
    ctx: Context, x: Array, axes: Axes, weight: Array | None, bias: Array | None, eps: float
) -> Array:
    """x̂ · weight + bias, x̂ having mean 0 and variance 1 over ``axes``; weight and bias broadcast."""
    x_hat = x - x.mean(axes, keepdims=True)
    inv_std = 1 / np.sqrt(np.square(x_hat).mean(axes, keepdims=True) + eps)
    x_hat *= inv_std
    ctx.save(x_hat, inv_std, weight)
    y = x_hat if weight is None else x_hat * weight
    return y if bias is None else as_array(y + bias)


def _gradients(
    ctx: Context, gy: Array, needs: Needs, axes: Axes, affine_axes: Axes
) -> tuple[Array | None, Array | None, Array | None]:
    """Gradients of :func:`_normalise`; those of weight and bias are sums over ``affine_axes``."""
    assert ctx.saved is not None
    x_hat, inv_std, weight = ctx.saved
    assert x_hat is not None and inv_std is not None
    gx = None
    if needs[0]:
        g = gy if weight is None else gy * weight
        gx = g - g.mean(axes, keepdims=True) - x_hat * (g * x_hat).mean(axes, keepdims=True)
        gx *= inv_std
    gweight = as_array((gy * x_hat).sum(affine_axes)) if needs[1] else None
    gbias = as_array(gy.sum(affine_axes)) if needs[2] else None
    return gx, gweight, gbias


def _affine(w: OnnxWriter, node: Node, shape: Axes) -> tuple[Any, Any]:
    """Weight and bias for an ONNX operator that wants both: ones and zeros for absent ones."""
    x, weight, bias = node.inputs
    dtype = x.type.dtype if x is not None and x.type is not None else np.dtype(np.float32)
    return (
        np.ones(shape, dtype) if weight is None else weight,
        np.zeros(shape, dtype) if bias is None else bias,
    )


def _x_shape(op: str, node: Node) -> Axes:
    known = node.inputs[0].type if node.inputs[0] is not None else None
    if known is None:
        raise ShapeError(f"{op}: the shape of x must be known to write it; trace with an example input")
    return known.shape


def _optional(n: OnnxNode, index: int) -> Any:
    return n.inputs[index] if len(n.inputs) > index else None


# ------------------------------------------------------------------------------------ layer_norm


def layer_norm_shape(
    x: ArrayType, weight: ArrayType | None, bias: ArrayType | None, axis: int, eps: float
) -> ArrayType:
    if not -len(x.shape) <= axis < len(x.shape):
        raise ShapeError(f"layer_norm: axis {axis} is out of range for x {list(x.shape)}")
    shape = x.shape[axis:]
    if 0 in shape:
        raise ShapeError(f"layer_norm: x {list(x.shape)} has no elements to normalise over")
    _check("layer_norm", x, shape, weight, bias)
    return x


def layer_norm_forward(
    ctx: Context, x: Array, weight: Array | None, bias: Array | None, axis: int, eps: float
) -> Array:
    size = prod(x.shape[axis:])
    geometry = lines(x.size // size, size, eps)
    y = memory.empty(x.shape, x.dtype, "C", x)
    mean, inv_std = (np.empty(geometry.M, x.dtype, like=x) for _ in range(2))
    wide = (geometry.M, size)
    affine = [None if a is None else a.reshape(-1) for a in (weight, bias)]
    launch("layer_norm_forward", geometry, x.reshape(wide), *affine, y.reshape(wide), mean, inv_std)
    ctx.save(x, mean, inv_std, weight)
    ctx.values["geometry"] = geometry
    return y


def layer_norm_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    assert ctx.saved is not None
    x, mean, inv_std, weight = ctx.saved
    assert x is not None
    geometry = ctx.values["geometry"]
    wide, shape = (geometry.M, geometry.C), x.shape[ctx.params["axis"] :]
    gx = memory.empty(wide, x.dtype, "C", x) if needs[0] else None
    gweight, gbias = (memory.empty(wide[1:], x.dtype, "C", x) if need else None for need in needs[1:3])
    factors = None if weight is None else weight.reshape(-1)
    operands = (x.reshape(wide), gy.reshape(wide), factors, mean, inv_std)
    launch("layer_norm_backward", geometry, *operands, gx, gweight, gbias)
    shapes = (x.shape, shape, shape)
    return [None if a is None else a.reshape(s) for a, s in zip((gx, gweight, gbias), shapes, strict=True)]


def layer_norm_samples() -> Iterator[Sample]:
    yield Sample((4, 6), (6,), (6,), axis=-1, eps=1e-5)
    yield Sample((2, 3, 4, 5), (4, 5), None, axis=-2, eps=1e-3)
    yield Sample((2, 5), None, None, axis=1, eps=1e-5)


def layer_norm_errors() -> Iterator[ErrorSample]:
    plain = dict(axis=-1, eps=1e-5)
    yield ErrorSample(ShapeError, "weight has shape", (2, 5), (4,), None, **plain)
    yield ErrorSample(ShapeError, "bias has shape", (2, 5), None, (1, 5), **plain)
    yield ErrorSample(ShapeError, "out of range", (2, 5), None, None, axis=2, eps=1e-5)
    yield ErrorSample(ShapeError, "no elements", (2, 0), None, None, **plain)
    yield ErrorSample(DTypeError, "floating-point", np.ones((2, 3), int), None, None, **plain)


def read_layer_norm(n: OnnxNode) -> Any:
    n.attribute("stash_type")  # the precision of half-precision models' statistics
    axis, eps = n.attribute("axis", -1), n.attribute("epsilon", 1e-5)
    x = n.inputs[0]
    y = n.emit("layer_norm", x, n.inputs[1], _optional(n, 2), axis=axis, eps=eps)
    if n.outputs < 2:
        return y
    rank = n.rank(0)
    if rank is None:
        raise n.refuse("the outputs Mean and InvStdDev need an input whose number of axes is declared")
    axes = tuple(range(axis % rank, rank))
    mean = n.emit("mean", x, axes=axes, keepdims=True)
    centred = n.emit("sub", x, mean)
    variance = n.emit("mean", n.emit("mul", centred, centred), axes=axes, keepdims=True)
    dtype = np.float64 if n.kind(0) == 11 else np.float32
    spread = n.emit("sqrt", n.emit("add", variance, n.leaf(np.asarray(eps, dtype))))
    return y, mean, n.emit("reciprocal", spread)


def write_layer_norm(w: OnnxWriter, node: Node) -> str:
    x, weight, bias = node.inputs
    axis, eps = node.params["axis"], float(node.params["eps"])
    shape = _x_shape("layer_norm", node)
    if w.version >= 17:
        scale, _ = _affine(w, node, shape[axis:])
        return w.add("LayerNormalization", [x, scale, bias], axis=axis, epsilon=eps)
    axes = tuple(axis % len(shape) + i for i in range(len(shape[axis:])))
    centred = w.add("Sub", [x, w.add("ReduceMean", [x], axes=axes, keepdims=1)])
    variance = w.add("ReduceMean", [w.add("Mul", [centred, centred])], axes=axes, keepdims=1)
    assert x is not None and x.type is not None
    std = w.add("Sqrt", [w.add("Add", [variance, w.host(eps, x.type.dtype)])])
    y = w.add("Div", [centred, std])
    y = y if weight is None else w.add("Mul", [y, weight])
    return y if bias is None else w.add("Add", [y, bias])


register(
    Op(
        name="layer_norm",
        formula="y = (x - mean) / √(variance + eps) · weight + bias, mean and variance over the axes from "
        "axis on, per place of the axes before;  weight and bias have the shape of those axes, or are absent",
        gradient="x̂ = (x - mean) / √(variance + eps), g = gy · weight; "
        "gx = (g - mean g - x̂ · mean(g · x̂)) / √(variance + eps); gweight = Σ gy · x̂; gbias = Σ gy",
        source="Ba et al. 2016, arXiv:1607.06450; ONNX LayerNormalization-17; torch.nn.functional.layer_norm",
        shape=layer_norm_shape,
        forward=layer_norm_forward,
        backward=layer_norm_backward,
        macs=lambda x, *_, **__: int(np.prod(x.shape)),
        samples=layer_norm_samples,
        errors=layer_norm_errors,
        reads={"LayerNormalization": read_layer_norm},
        writes=write_layer_norm,
        layout="C",
        kernels=("layer_norm_forward", "layer_norm_backward"),
    )
)

# ------------------------------------------------------------------------------------ group_norm


def group_norm_shape(
    x: ArrayType, weight: ArrayType | None, bias: ArrayType | None, num_groups: int, eps: float
) -> ArrayType:
    if len(x.shape) < 2:
        raise ShapeError(f"group_norm: x has shape {list(x.shape)} but must be [N,C,...]")
    channels = x.shape[1]
    if num_groups < 0 or (num_groups and channels % num_groups):
        raise ShapeError(f"group_norm: num_groups={num_groups} must divide the {channels} channels of x")
    if 0 in x.shape[1:]:
        raise ShapeError(f"group_norm: x {list(x.shape)} has no elements to normalise over")
    _check("group_norm", x, (channels,), weight, bias)
    return x


def _grouped(array: Array, num_groups: int) -> Array:
    """A channels-last [N,C,...] as the view [N,M,G,C/G], M being the pixels of a sample."""
    groups = num_groups or array.shape[1]
    return np.moveaxis(array, 1, -1).reshape(array.shape[0], -1, groups, array.shape[1] // groups)


def _ungrouped(array: Array, shape: Axes) -> Array:
    return np.moveaxis(array.reshape(shape[0], *shape[2:], shape[1]), -1, 1)


def group_norm_forward(
    ctx: Context, x: Array, weight: Array | None, bias: Array | None, num_groups: int, eps: float
) -> Array:
    grouped = _grouped(x, num_groups)
    affine = [None if a is None else a.reshape(grouped.shape[2:]) for a in (weight, bias)]
    return _ungrouped(_normalise(ctx, grouped, (1, 3), affine[0], affine[1], eps), x.shape)


def group_norm_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    gx, gweight, gbias = _gradients(ctx, _grouped(gy, ctx.params["num_groups"]), needs, (1, 3), (0, 1))
    return (
        None if gx is None else _ungrouped(gx, gy.shape),
        None if gweight is None else gweight.reshape(-1),
        None if gbias is None else gbias.reshape(-1),
    )


def group_norm_samples() -> Iterator[Sample]:
    yield Sample((2, 6, 3, 4), (6,), (6,), num_groups=3, eps=1e-5)
    yield Sample((2, 4, 5), None, None, num_groups=1, eps=1e-3)
    yield Sample((2, 3, 4, 2), (3,), (3,), num_groups=0, eps=1e-5)
    yield Sample((3, 6), (6,), None, num_groups=2, eps=1e-5)


def group_norm_errors() -> Iterator[ErrorSample]:
    x, plain = (2, 6, 3, 3), dict(num_groups=3, eps=1e-5)
    yield ErrorSample(ShapeError, "must be .N,C", (6,), None, None, **plain)
    yield ErrorSample(ShapeError, "must divide", x, None, None, num_groups=4, eps=1e-5)
    yield ErrorSample(ShapeError, "weight has shape", x, (3,), None, **plain)
    yield ErrorSample(ShapeError, "no elements", (2, 6, 0), None, None, **plain)
    yield ErrorSample(DTypeError, "floating-point", np.ones((2, 3), int), None, None, **plain)


def read_instance_norm(n: OnnxNode) -> Any:
    return n.emit("group_norm", *n.inputs, num_groups=0, eps=n.attribute("epsilon", 1e-5))


def read_group_norm(n: OnnxNode) -> Any:
    n.attribute("stash_type")
    groups, eps = n.attribute("num_groups"), n.attribute("epsilon", 1e-5)
    if groups < 1:
        raise n.refuse(f"malformed: num_groups={groups} must be at least 1")
    if n.version < 21:
        raise n.refuse("scale and bias per group (operator sets 18 to 20) are not supported; export with 21")
    return n.emit("group_norm", *n.inputs, num_groups=groups, eps=eps)


def write_group_norm(w: OnnxWriter, node: Node) -> str:
    (x, weight, bias), shape = node.inputs, _x_shape("group_norm", node)
    groups, eps = node.params["num_groups"], float(node.params["eps"])
    if groups in (0, shape[1]) and len(shape) > 2:
        return w.add("InstanceNormalization", [x, *_affine(w, node, shape[1:2])], epsilon=eps)
    if w.version >= 21 and len(shape) > 2:
        scale, shift = _affine(w, node, shape[1:2])
        return w.add("GroupNormalization", [x, scale, shift], num_groups=groups, epsilon=eps)
    assert x is not None and x.type is not None
    groups, dtype = groups or shape[1], x.type.dtype
    flat = w.add("Reshape", [x, w.host((0, groups, -1))])
    scale, shift = np.ones(groups, dtype), np.zeros(groups, dtype)
    y = w.add("InstanceNormalization", [flat, scale, shift], epsilon=eps)
    y = w.add("Reshape", [y, w.add("Shape", [x])])
    per_channel = w.host((-1, *[1] * (len(shape) - 2)))
    y = y if weight is None else w.add("Mul", [y, w.add("Reshape", [weight, per_channel])])
    return y if bias is None else w.add("Add", [y, w.add("Reshape", [bias, per_channel])])


register(
    Op(
        name="group_norm",
        formula="y = (x - mean) / √(variance + eps) · weight + bias, mean and variance over one sample's "
        "pixels and channels of a group;  x and y [N,C,...], weight and bias [C] or absent; "
        "num_groups groups of C/num_groups channels, 0 for a group of each channel (instance normalisation)",
        gradient="as for layer_norm, means over the same elements; gweight and gbias are sums over all but C",
        source="Wu and He 2018, arXiv:1803.08494; ONNX GroupNormalization-21, InstanceNormalization-22",
        shape=group_norm_shape,
        forward=group_norm_forward,
        backward=group_norm_backward,
        macs=lambda x, *_, **__: int(np.prod(x.shape)),
        samples=group_norm_samples,
        errors=group_norm_errors,
        reads={"InstanceNormalization": read_instance_norm, "GroupNormalization": read_group_norm},
        writes=write_group_norm,
        layout="channels_last",
    )
)
