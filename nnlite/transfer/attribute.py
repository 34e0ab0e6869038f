"""What in a picture made a network say what it says: Grad-CAM, integrated gradients, occlusion.

Three answers to one question, each with its own weakness: Grad-CAM is quick and coarse (the resolution
of the last feature map), integrated gradients are exact in their sum and noisy in the single pixel,
occlusion assumes nothing about the network and costs a forward pass for every window.

Letters: N pictures, K channels of a feature map of h x w, H x W the picture. y^c is the score of class c
before any softmax, so that it does not fall because another class's score rose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from nnlite import autograd, memory
from nnlite.errors import ConfigError, ModelError, ShapeError
from nnlite.graph import GraphModule, infer_types
from nnlite.layout import Array
from nnlite.node import Value
from nnlite.ops import ArrayType
from nnlite.tensors import Tensor, grad
from nnlite.transfer.classifier import RESHAPING
from nnlite.transfer.stages import planes_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

METHODS = ("gradcam", "ig", "occlusion")
SOFTMAXES = {"softmax", "log_softmax"}
AFTER_MAP = {"max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "dropout", "identity"}
"""What may stand between the last layer that looks at space and the global pooling."""


def score_value(module: GraphModule) -> Value:
    """The value that holds the scores y of the classes: the output, or what its softmax reads.

    Raises ModelError unless the model has exactly one output.
    """
    if len(module.graph.outputs) != 1:
        names = ", ".join(module.outputs)
        raise ModelError(f"the model has {len(module.outputs)} outputs ({names}); a classifier has one")
    output = value = module.graph.outputs[0]
    while value.node is not None and value.node.inputs and value.node.inputs[0] is not None:
        before = value.node.inputs[0]
        if value.node.op.name in SOFTMAXES:
            return before
        if value.node.op.name not in RESHAPING:
            break
        value = before
    return output


def find_map(module: GraphModule, size: tuple[int, int], name: str | None = None) -> Value:
    """The feature map [N,K,h,w] that Grad-CAM looks at, for pictures of ``size`` (H, W).

    Without ``name`` it is the last one with more than one pixel that the scores depend on, taken before the
    pooling that follows it: what goes into the global pooling of a ResNet, the last convolution's
    activations of a VGG. ``name`` is that of a value or of a node. Raises ModelError that
    lists some maps when there is none of that name, or none at all.
    """
    scores = score_value(module)
    graph = module.outline().between(module.graph.inputs, [scores])
    given = {graph.inputs[0]: ArrayType((1, planes_of(module), *size), np.dtype(np.float32))}
    types = infer_types(graph, given)
    inside = graph.dependents(graph.inputs)
    maps = {
        value: node.name for node in graph.nodes if node in inside for value in node.outputs
        if value in types and len(types[value].shape) == 4 and min(types[value].shape[2:]) > 1
    }  # fmt: skip
    if name is not None:
        for value, node in maps.items():
            if name in (value.name, node):
                return value
        some = ", ".join(value.name for value in list(maps)[-6:]) or "there are none"
        raise ModelError(f"{name!r} is no feature map [N,K,h,w] of the model; the last ones are {some}")
    if not maps:
        raise ModelError(
            f"no feature map with more than one pixel was found for pictures of {size[0]} x {size[1]}; "
            "name one with --at, or use the method ig or occlusion"
        )
    value = list(maps)[-1]
    while value.node is not None and value.node.op.name in AFTER_MAP:
        before = value.node.inputs[0]
        if before not in maps:
            break
        assert before is not None
        value = before
    return value


def grad_cam(
    module: GraphModule,
    images: Array,
    classes: ArrayLike | None = None,
    *,
    at: Value | str | None = None,
    size: tuple[int, int] | None = None,
    maps: Array | None = None,
) -> Array:
    """Gradient-weighted class activation maps, float32 [N,h,w], or [N,H,W] where ``size`` = (H, W).

        α_k = 1/(h·w) · Σ_ij ∂y^c / ∂A_k[i,j]        L = ReLU(Σ_k α_k · A_k)

    with A [N,K,h,w] the feature map ``at`` (found by :func:`find_map`) and c the class of each picture
    in ``classes`` [N], by default the one of highest score. L is 0 where nothing speaks for the class,
    and as large as the scores make it: divide by its largest value to draw it. Enlarged bilinearly.
    ``maps`` is A where it is known already.

    Raises ModelError where the scores do not depend on the map. Source: Selvaraju et al. 2017,
    "Grad-CAM", equations 1 and 2.
    """
    scores, inputs = score_value(module), module.graph.inputs
    value = at if isinstance(at, Value) else find_map(module, images.shape[2:4], at)
    if maps is None:
        maps = module.part(inputs, [value]).compile()(images)
    # What else reads the picture, past the map, is computed again from it.
    rest = module.part([*inputs, value], [scores]).eval()
    a = Tensor(maps, requires_grad=True)
    y = _flat(rest(Tensor(images), a))
    if not y.requires_grad:
        raise ModelError(f"the classes' scores do not depend on {value.name!r}; name another map with --at")
    (gradient,) = grad(y, a, _one_hot(y, classes))
    assert gradient is not None
    weights = gradient.numpy().mean(axis=(2, 3), keepdims=True)  # [N,K,1,1]
    cam = np.maximum((weights * maps).sum(axis=1), 0, dtype=np.float32)  # [N,h,w]
    return cam if size is None else enlarge(cam, size)


def integrated_gradients(
    module: GraphModule,
    images: Array,
    classes: ArrayLike | None = None,
    *,
    baseline: Array | float = 0.0,
    steps: int = 32,
    batch_size: int = 16,
) -> Array:
    """Every input number's share in the score, float32 [N,C,H,W].

        IG_i = (x_i - x'_i) · ∫₀¹ ∂y^c/∂x_i (x' + t·(x - x')) dt

    with x' the ``baseline`` (an array that broadcasts to the pictures; what the network should see as
    "nothing", such as black, prepared as the pictures are). Completeness: Σ_i IG_i = y^c(x) - y^c(x').
    The integral is a Gauss-Legendre sum of ``steps`` points, which is exact where y^c is a polynomial
    of degree 2·steps or less along the path; how far the sum is off tells whether ``steps`` are enough.

    Raises ConfigError for ``steps`` below 1. Source: Sundararajan, Taly, Yan 2017, "Axiomatic
    Attribution for Deep Networks", equation 1.
    """
    if steps < 1 or batch_size < 1:
        raise ConfigError(f"integrated_gradients: steps={steps}, batch_size={batch_size} must be at least 1")
    scores = module.part(module.graph.inputs, [score_value(module)]).eval()
    start = np.broadcast_to(np.asarray(baseline, np.float32), images.shape)
    chosen = _chosen(scores, images, classes, batch_size)
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    points, weights = ((nodes + 1) / 2).astype(np.float32), weights / 2  # from -1 .. 1 to 0 .. 1
    result = np.empty(images.shape, np.float32)
    for n, image in enumerate(images):
        total = np.zeros(image.shape, np.float64)
        way = image - start[n]
        for rows in _slices(steps, batch_size):
            t = points[rows].reshape(-1, 1, 1, 1)
            x = Tensor((start[n] + t * way).astype(np.float32), requires_grad=True)
            y = _flat(scores(x))
            (gradient,) = grad(y, x, _one_hot(y, np.full(len(t), chosen[n])))
            assert gradient is not None
            total += np.tensordot(weights[rows], gradient.numpy(), axes=1)
        result[n] = way * total
    return result


def occlusion(
    scores: Callable[[Array], Array],
    images: Array,
    classes: ArrayLike | None = None,
    *,
    patch: int | None = None,
    stride: int | None = None,
    fill: ArrayLike = 0.0,
    batch_size: int = 2,
    whole: Array | None = None,
) -> Array:
    """How much the class loses when a part of the picture is covered, float32 [N,H,W].

        M[p] = mean over the windows W that cover pixel p of  f_c(x) - f_c(x with W set to ``fill``)

    with ``scores`` f: pictures [M,C,H,W] to numbers [M,classes], usually probabilities. Windows are
    squares of ``patch`` pixels (a fifth of the shorter side), every ``stride`` pixels (half of it), cut
    at the border so that every pixel is covered; ``fill`` is a number per channel. Negative where the
    part spoke against the class. ``whole`` is f of ``images`` where it is known already.

    Raises ConfigError unless 1 <= stride <= patch <= min(H, W). Source: Zeiler and Fergus 2014,
    "Visualizing and Understanding Convolutional Networks", section 4.2 (which plots f_c itself).
    """
    N, C, H, W = images.shape
    patch = max(1, round(min(H, W) / 5)) if patch is None else patch
    stride = max(1, patch // 2) if stride is None else stride
    if not 1 <= stride <= patch <= min(H, W):
        raise ConfigError(
            f"occlusion: patch={patch}, stride={stride} must satisfy 1 <= stride <= patch <= {min(H, W)}"
        )
    colour = np.broadcast_to(np.asarray(fill, np.float32), (C,)).reshape(C, 1, 1)
    windows = [(top, left) for top in _starts(H, patch, stride) for left in _starts(W, patch, stride)]
    result = np.empty((N, H, W), np.float32)
    for n, image in enumerate(images):
        own = scores(images[n : n + 1])[0] if whole is None else whole[n]
        c = int(own.argmax()) if classes is None else int(np.asarray(classes)[n])
        loss, cover = np.zeros((H, W)), np.zeros((H, W))
        for rows in _slices(len(windows), batch_size):
            covered = memory.empty((len(windows[rows]), C, H, W))  # in the order that kernels read
            covered[...] = image
            for one, (top, left) in zip(covered, windows[rows], strict=True):
                one[:, top : top + patch, left : left + patch] = colour
            for y, (top, left) in zip(scores(covered)[:, c], windows[rows], strict=True):
                loss[top : top + patch, left : left + patch] += own[c] - y
                cover[top : top + patch, left : left + patch] += 1
        result[n] = loss / cover
    return result


def enlarge(maps: Array, size: tuple[int, int]) -> Array:
    """Maps [N,h,w] resampled bilinearly to float32 [N,H,W]; pixels are areas, not corners."""
    from nnlite.functional import interpolate

    with autograd.no_grad():
        grown = interpolate(Tensor(maps[:, np.newaxis].astype(np.float32)), size=size, mode="bilinear")
    return grown.numpy()[:, 0]


# ------------------------------------------------------------------------------------ pieces


def _flat(y: Tensor) -> Tensor:
    """Scores [N,classes]; a convolution as the head gives [N,classes,1,1]."""
    return y if y.ndim == 2 else y.reshape(y.shape[0], -1)


def _one_hot(y: Tensor, classes: ArrayLike | None) -> Array:
    """What to seed the gradient with so that each picture's own class is differentiated, float32 [N,C]."""
    chosen = y.numpy().argmax(1) if classes is None else np.asarray(classes)
    N, C = y.shape
    if chosen.shape != (N,):
        raise ShapeError(f"classes has shape {list(chosen.shape)} but must be [{N}], one for each picture")
    if chosen.min() < 0 or chosen.max() >= C:
        raise ConfigError(f"classes holds {sorted(set(chosen.tolist()))}, but must be in 0 .. {C - 1}")
    seed = np.zeros((N, C), np.float32)
    seed[np.arange(N), chosen] = 1
    return seed


def _chosen(scores: GraphModule, images: Array, classes: ArrayLike | None, batch_size: int) -> Sequence[int]:
    if classes is not None:
        return [int(c) for c in np.asarray(classes).reshape(-1)]
    with autograd.no_grad():
        parts = [_flat(scores(Tensor(images[rows]))).numpy() for rows in _slices(len(images), batch_size)]
    return [int(c) for c in np.concatenate(parts).argmax(1)]


def _starts(side: int, patch: int, stride: int) -> list[int]:
    """Where windows begin along an axis; the last one ends at the border."""
    return [*range(0, side - patch, stride), side - patch]


def _slices(count: int, size: int) -> Iterator[slice]:
    return (slice(begin, min(begin + size, count)) for begin in range(0, count, size))
