"""Convolution: how a geometry is cut into tiles, blocks and tasks. ``jit/gemm.py`` says what they are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from nnlite.geometry import FUNCTION, NO_ACTIVATION, Conv2dGeometry, EltwiseGeometry
from nnlite.kernels.numba_cpu.eltwise import combine
from nnlite.kernels.numba_cpu.launch import compiled, flat, floating, session
from nnlite.kernels.spec import REGISTRY, DType, Variant
from nnlite.layout import Array

TILE = 48  # rows of a tile; jit/gemm.py has the number in its loops
GROUP = 4  # tiles that one task takes together, so that they share weights from the second-level cache
SLOTS = 32  # pieces of scratch memory, and the most threads that a convolution keeps busy
ITEM = 8  # bytes of the largest element: a workspace is measured without knowing the type
# Panel width -> speed of the product relative to the widest, measured (see jit/gemm.py).
SPEED = {128: 1.0, 64: 0.73, 32: 0.5, 16: 0.27}
Ints = tuple[int, ...]


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


@dataclass(frozen=True)
class Plan:
    """Sizes of one launch, all from the geometry."""

    source: Ints
    """H, W, C of what is gathered."""
    target: Ints
    """H, W, C, N of what rows stand for."""
    walk: Ints
    """scale, shift, step, divisor, each for h and w."""
    sizes: Ints
    """groups, panels, blocks, depth, width, outs and ins of a group, R·S, taps and channels of a block,
    joined."""
    kernel: Ints
    """S, taps that lie in one piece."""
    tiles: int
    """Tiles that a task of gather_product takes."""
    slots: int
    chunks: int
    """Parts of the sum over rows in weight_product."""

    @property
    def packed(self) -> int:
        """Elements of the packed weights, or of one chunk of the weight gradient."""
        groups, panels, blocks, depth, width = self.sizes[:5]
        return groups * panels * blocks * depth * width

    @property
    def scratch(self) -> int:
        """Elements of one slot: a gathered tile, and sums or a tile of gy."""
        return TILE * self.sizes[3] + self.tiles * TILE * self.sizes[4]

    @property
    def workspace(self) -> int:
        """Bytes: weights or partial sums, the slots, and where the rows of each lie."""
        elements = self.chunks * self.packed + self.slots * self.scratch
        return (elements + self.slots * self.tiles * TILE * 4) * ITEM

    def views(self, workspace: Array | None, dtype: DType) -> tuple[Array, Array, Array]:
        """The workspace as (packed or partial [chunks,...], scratch [slots,...], places [slots,rows,4])."""
        assert workspace is not None
        places = self.slots * self.tiles * TILE * 4 * ITEM
        rows = workspace[:places].view(np.int64).reshape(self.slots, -1, 4)
        rest = workspace[places:].view(dtype)
        first, second = self.chunks * self.packed, self.slots * self.scratch
        return (
            rest[:first].reshape(self.chunks, -1),
            rest[first : first + second].reshape(self.slots, -1),
            rows,
        )


def _blocks(g: Conv2dGeometry, ins: int, limit: int, contiguous: bool, whole: bool) -> tuple[int, int, int]:
    """(taps, channels) of a block of at most about ``limit`` rows, and taps that lie in one piece.

    Few channels make blocks of several taps. ``contiguous``: neighbouring taps along s are neighbours in
    memory. ``whole``: a block is one tap.
    """
    if ins >= limit // 2 or whole:
        parts = -(-ins // limit)
        return 1, min(ins, _round_up(-(-ins // parts), 12)), 1
    if contiguous and g.S * ins <= limit:
        return min(g.R, limit // (g.S * ins)) * g.S, ins, g.S
    return min(g.R * g.S, limit // ins), ins, 1


def _joined(groups: int, outs: int, ins: int) -> int:
    """How many groups to make one of: as many as fit the narrowest panel."""
    most = min(SPEED) // max(outs, ins)
    return max((n for n in range(1, most + 1) if groups % n == 0), default=1)


def _plan(
    g: Conv2dGeometry, source: Ints, target: Ints, walk: Ints, ins: int, outs: int, limit: int, weights: bool
) -> Plan:
    joined = _joined(g.groups, outs, ins)
    groups, ins, outs = g.groups // joined, ins * joined, outs * joined
    divided = walk[6] > 1 or walk[7] > 1
    contiguous = groups == 1 and walk[5] == 1
    taps, channels, run = _blocks(g, ins, limit, contiguous, divided)
    width = min(SPEED, key=lambda w: -(-outs // w) * w / SPEED[w])
    panels, depth = -(-outs // width), _round_up(taps * channels, 12)
    blocks = -(-g.R * g.S // taps) * -(-ins // channels)
    rows = target[0] * target[1] * target[3]
    chunks = tiles = 1
    tasks = groups * panels
    if weights:
        tasks *= blocks
        # Enough tasks to share out, but no part of the sum so short that adding the parts is the work.
        chunks = max(1, min(-(-SLOTS // max(tasks, 1)), rows // (8 * TILE)))
        tasks *= chunks
    else:
        tiles = GROUP if tasks * rows >= 2 * SLOTS * GROUP * TILE else 1
        tasks *= max(1, rows // (tiles * TILE))
    sizes = (groups, panels, blocks, depth, width, outs, ins, g.R * g.S, taps, channels, joined)
    return Plan(source, target, walk, sizes, (g.S, run), tiles, max(1, min(SLOTS, tasks)), chunks)


def _forward_walk(g: Conv2dGeometry) -> tuple[Ints, Ints, Ints]:
    walk = (g.stride_h, g.stride_w, -g.pad_top, -g.pad_left, g.dilation_h, g.dilation_w, 1, 1)
    return (g.H, g.W, g.C), (g.P, g.Q, g.K, g.N), walk


def _backward_walk(g: Conv2dGeometry) -> tuple[Ints, Ints, Ints]:
    walk = (1, 1, g.pad_top, g.pad_left, -g.dilation_h, -g.dilation_w, g.stride_h, g.stride_w)
    return (g.P, g.Q, g.K), (g.H, g.W, g.C, g.N), walk


@lru_cache(maxsize=4096)
def _forward_plan(g: Conv2dGeometry) -> Plan:
    return _plan(g, *_forward_walk(g), g.C // g.groups, g.K // g.groups, 96, weights=False)


@lru_cache(maxsize=4096)
def _grad_input_plan(g: Conv2dGeometry) -> Plan:
    return _plan(g, *_backward_walk(g), g.K // g.groups, g.C // g.groups, 96, weights=False)


@lru_cache(maxsize=4096)
def _grad_weight_plan(g: Conv2dGeometry) -> Plan:
    return _plan(g, *_forward_walk(g), g.C // g.groups, g.K // g.groups, 48, weights=True)


def _gather_product(
    plan: Plan, x: Array, w: Array, strides: Ints, bias: Array | None, y: Array, workspace: Array | None
) -> None:
    gemm = compiled("gemm")
    packed, scratch, places = plan.views(workspace, x.dtype)
    weights = packed.reshape(-1)
    bias = np.empty(0, x.dtype) if bias is None else bias
    with session():
        gemm.pack(flat(w), weights, plan.sizes, strides)
        gemm.gather_product(
            flat(x), weights, bias, flat(y), scratch, places,
            plan.source, plan.target, plan.walk, plan.sizes, plan.kernel, plan.tiles,
        )  # fmt: skip


def _finish(g: Conv2dGeometry, residual: Array | None, y: Array) -> None:
    """y = act(y + residual), in place."""
    if residual is None and g.activation == NO_ACTIVATION:
        return
    after = EltwiseGeometry(y.size, activation=g.activation, low=g.low, high=g.high)
    combine(after, flat(y), None if residual is None else flat(residual), flat(y), None)


def forward(
    g: Conv2dGeometry,
    x: Array,
    w: Array,
    bias: Array | None,
    residual: Array | None,
    y: Array,
    workspace: Array | None,
) -> None:
    ins, taps = g.C // g.groups, g.R * g.S
    strides = (g.K // g.groups * taps * ins, taps * ins, 1, ins)  # of group, k, c, tap in w
    _gather_product(_forward_plan(g), x, w, strides, bias, y, workspace)
    _finish(g, residual, y)


def grad_input(g: Conv2dGeometry, gy: Array, w: Array, gx: Array, workspace: Array | None) -> None:
    ins, taps = g.C // g.groups, g.R * g.S
    strides = (g.K // g.groups * taps * ins, 1, taps * ins, ins)  # of group, c, k, tap
    _gather_product(_grad_input_plan(g), gy, w, strides, None, gx, workspace)


def grad_weight(g: Conv2dGeometry, x: Array, gy: Array, gw: Array, workspace: Array | None) -> None:
    gemm, plan = compiled("gemm"), _grad_weight_plan(g)
    partial, scratch, places = plan.views(workspace, x.dtype)
    with session():
        gemm.weight_product(
            flat(x), flat(gy), partial, scratch, places,
            plan.source, plan.target, plan.walk, plan.sizes, plan.kernel,
        )  # fmt: skip
        gemm.sum_weights(partial, flat(gw), plan.sizes)


# ------------------------------------------------------------------------------------ depthwise


def _depthwise_weights(g: Conv2dGeometry, w: Array, workspace: Array | None) -> Array:
    """w [C,1,R,S] as [R·S,C], so that channels lie together."""
    assert workspace is not None
    packed = workspace.view(w.dtype)[: g.C * g.R * g.S].reshape(-1, g.C)
    packed[...] = flat(w).reshape(g.C, -1).T
    return packed.reshape(-1)


def depthwise_forward(
    g: Conv2dGeometry,
    x: Array,
    w: Array,
    bias: Array | None,
    residual: Array | None,
    y: Array,
    workspace: Array | None,
) -> None:
    weights, walk = _depthwise_weights(g, w, workspace), _forward_walk(g)
    bias = np.empty(0, x.dtype) if bias is None else bias
    with session():
        compiled("depthwise").gather(flat(x), weights, bias, flat(y), *walk, (g.R, g.S))
    _finish(g, residual, y)


def depthwise_grad_input(g: Conv2dGeometry, gy: Array, w: Array, gx: Array, workspace: Array | None) -> None:
    weights, walk = _depthwise_weights(g, w, workspace), _backward_walk(g)
    with session():
        compiled("depthwise").gather(flat(gy), weights, np.empty(0, gy.dtype), flat(gx), *walk, (g.R, g.S))


def depthwise_grad_weight(g: Conv2dGeometry, x: Array, gy: Array, gw: Array, workspace: Array | None) -> None:
    assert workspace is not None
    taps = g.R * g.S
    partial = workspace.view(x.dtype)[: _depthwise_chunks(g) * taps * g.C].reshape(-1, taps * g.C)
    with session():
        compiled("depthwise").weight_sums(flat(x), flat(gy), partial, *_forward_walk(g), (g.R, g.S))
    flat(gw).reshape(g.C, taps)[...] = partial.sum(0).reshape(taps, g.C).T


def _depthwise_chunks(g: Conv2dGeometry) -> int:
    return max(1, min(SLOTS, g.N * g.P))


# ------------------------------------------------------------------------------------- variants


def _serves(g: Conv2dGeometry, dtype: DType) -> str | None:
    if g.activation >= FUNCTION:
        return "a function that follows has a pass of its own"
    return floating(dtype) or (None if g.C and g.K else "needs at least one channel")


def _depthwise(g: Conv2dGeometry, dtype: DType) -> str | None:
    if g.groups != g.C or g.K != g.C:
        return "for one input and one output channel per group"
    return _serves(g, dtype)


def _depthwise_size(g: Conv2dGeometry) -> int:
    return g.C * g.R * g.S * ITEM


# In order of preference.
for _kernel, _name, _run, _supports, _size in (
    ("forward", "depthwise", depthwise_forward, _depthwise, _depthwise_size),
    ("forward", "gemm", forward, _serves, lambda g: _forward_plan(g).workspace),
    ("grad_input", "depthwise", depthwise_grad_input, _depthwise, _depthwise_size),
    ("grad_input", "gemm", grad_input, _serves, lambda g: _grad_input_plan(g).workspace),
    (
        "grad_weight", "depthwise", depthwise_grad_weight, _depthwise,
        lambda g: _depthwise_chunks(g) * _depthwise_size(g),
    ),
    ("grad_weight", "gemm", grad_weight, _serves, lambda g: _grad_weight_plan(g).workspace),
):  # fmt: skip
    REGISTRY.add_variant(Variant(f"conv2d_{_kernel}", "numba", _name, _run, _supports, _size))
