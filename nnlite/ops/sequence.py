"""Repeating, cutting and summing along axes: tile, chunk, cumsum, einsum."""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from nnlite.errors import DTypeError, OperandError, ShapeError
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
from nnlite.ops.reduce import normalise_axes

# ------------------------------------------------------------------------------------------ tile


def tile_shape(x: ArrayType, repeats: Sequence[int]) -> ArrayType:
    if len(repeats) != len(x.shape) or min(repeats, default=0) < 0:
        raise ShapeError(f"tile: repeats {list(repeats)} must be {len(x.shape)}, one for each axis of x")
    return ArrayType(tuple(int(n * r) for n, r in zip(x.shape, repeats, strict=True)), x.dtype)


def tile_forward(ctx: Context, x: Array, repeats: Sequence[int]) -> Array:
    ctx.values["x_shape"] = x.shape
    return np.tile(x, tuple(int(r) for r in repeats))


def tile_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    parts = [(int(r), n) for r, n in zip(ctx.params["repeats"], ctx.values["x_shape"], strict=True)]
    split = gy.reshape([size for pair in parts for size in pair])
    return (as_array(split.sum(tuple(range(0, split.ndim, 2)))),)


register(
    Op(
        name="tile",
        formula="x laid repeats[i] times one after another along each axis i",
        gradient="gx = Σ gy over the copies",
        source="ONNX Tile-13; torch.tile",
        shape=tile_shape,
        forward=tile_forward,
        backward=tile_backward,
        samples=lambda: [Sample((2, 3), repeats=(2, 1)), Sample((2, 1, 3), repeats=(1, 3, 2))],
        errors=lambda: [ErrorSample(ShapeError, "one for each axis", (2, 3), repeats=(2,))],
        reads={"Tile": lambda n: n.emit("tile", n.inputs[0], repeats=n.host(1))},
        writes=lambda w, node: w.add("Tile", [node.inputs[0], w.host(node.params["repeats"])]),
    )
)

# ----------------------------------------------------------------------------------------- chunk


def _bounds(
    shape: tuple[int, ...], axis: int, index: int, parts: int, sizes: Sequence[int] | None
) -> tuple[int, int, int]:
    """The axis, and where the part begins and ends."""
    (at,) = normalise_axes("chunk", (axis,), len(shape))
    if not 0 <= index < parts or (sizes is not None and len(sizes) != parts):
        raise OperandError(f"chunk: part {index} of {parts} with sizes {sizes} does not exist")
    if sizes is None:
        each = -(-shape[at] // parts)
        return at, min(index * each, shape[at]), min((index + 1) * each, shape[at])
    if sum(sizes) != shape[at]:
        raise ShapeError(f"chunk: sizes {list(sizes)} do not add up to {shape[at]}, the size of axis {axis}")
    start = int(sum(sizes[:index]))
    return at, start, start + int(sizes[index])


def chunk_shape(x: ArrayType, axis: int, index: int, parts: int, sizes: Sequence[int] | None) -> ArrayType:
    at, start, end = _bounds(x.shape, axis, index, parts, sizes)
    return ArrayType((*x.shape[:at], end - start, *x.shape[at + 1 :]), x.dtype)


def chunk_forward(ctx: Context, x: Array, **params: Any) -> Array:
    at, start, end = _bounds(x.shape, **params)
    ctx.values.update(x_shape=x.shape, at=at, start=start, end=end)
    return x[(slice(None),) * at + (slice(start, end),)]


def chunk_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    at, start, end = (ctx.values[name] for name in ("at", "start", "end"))
    gx = np.zeros(ctx.values["x_shape"], gy.dtype, like=gy)
    gx[(slice(None),) * at + (slice(start, end),)] = gy
    return (gx,)


def read_split(n: OnnxNode) -> Any:
    given = len(n.inputs) > 1  # in operator set 1, too, where they are of floating type
    sizes = n.host(1) if given else n.attribute("split") if n.version < 13 else None
    parts = n.attribute("num_outputs", n.outputs)
    params = dict[str, Any](axis=n.attribute("axis", 0), parts=parts, sizes=sizes)
    return tuple(n.emit("chunk", n.inputs[0], index=i, **params) for i in range(n.outputs))


def write_chunk(w: OnnxWriter, node: Node) -> str:
    (x,) = node.inputs
    if x is None or x.type is None:
        raise ShapeError("chunk: the shape of x must be known to write it; trace with an example input")
    at, start, end = _bounds(x.type.shape, **node.params)
    return w.add("Slice", [x, w.host((start,)), w.host((end,)), w.host((at,))])


register(
    Op(
        name="chunk",
        formula="the index-th of several parts of x along axis, of the given sizes or all of ⌈size / parts⌉ "
        "but the last",
        gradient="gx = 0 with gy in the part's place",
        source="ONNX Split-18 (one of its outputs); torch.chunk, torch.split",
        shape=chunk_shape,
        forward=chunk_forward,
        backward=chunk_backward,
        samples=lambda: [
            Sample((2, 7), axis=1, index=2, parts=3, sizes=None),
            Sample((5, 3), axis=0, index=1, parts=2, sizes=(2, 3)),
        ],
        errors=lambda: [
            ErrorSample(ShapeError, "do not add up to 5", (5, 3), axis=0, index=0, parts=2, sizes=(2, 2)),
            ErrorSample(ShapeError, "out of range", (5, 3), axis=2, index=0, parts=1, sizes=None),
            ErrorSample(OperandError, "does not exist", (5, 3), axis=0, index=2, parts=2, sizes=None),
        ],
        reads={"Split": read_split},
        writes=write_chunk,
    )
)

# ---------------------------------------------------------------------------------------- cumsum


def cumsum_shape(x: ArrayType, axis: int, exclusive: bool = False, reverse: bool = False) -> ArrayType:
    if x.dtype.kind not in "fiu":
        raise DTypeError(f"cumsum: x is {x.dtype} but must hold numbers")
    normalise_axes("cumsum", (int(axis),), len(x.shape))
    return x


def _running_sum(x: Array, axis: int, exclusive: bool, reverse: bool) -> Array:
    if reverse:
        return np.flip(_running_sum(np.flip(x, axis), axis, exclusive, False), axis)
    total = np.cumsum(x, axis, dtype=x.dtype)
    return as_array(total - x) if exclusive else total


def cumsum_forward(
    ctx: Context, x: Array, axis: int, exclusive: bool = False, reverse: bool = False
) -> Array:
    return _running_sum(x, int(axis), exclusive, reverse)


def cumsum_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    exclusive, reverse = ctx.params.get("exclusive", False), ctx.params.get("reverse", False)
    return (_running_sum(gy, int(ctx.params["axis"]), exclusive, not reverse),)


def read_cumsum(n: OnnxNode) -> Any:
    axis = n.host(1)
    axis = axis[0] if isinstance(axis, tuple) else axis
    flags = {name: bool(n.attribute(name, 0)) for name in ("exclusive", "reverse")}
    return n.emit("cumsum", n.inputs[0], axis=axis, **flags)


def write_cumsum(w: OnnxWriter, node: Node) -> str:
    flags = {name: int(node.params.get(name, False)) for name in ("exclusive", "reverse")}
    return w.add("CumSum", [node.inputs[0], w.host(node.params["axis"])], **flags)


register(
    Op(
        name="cumsum",
        formula="y[i] = Σ x[j] over j ≤ i along axis (j < i when exclusive; j ≥ i in reverse)",
        gradient="gx = the running sum of gy in the other direction",
        source="ONNX CumSum-14; torch.cumsum",
        shape=cumsum_shape,
        forward=cumsum_forward,
        backward=cumsum_backward,
        samples=lambda: [
            Sample((2, 5), axis=1),
            Sample((3, 2, 4), axis=-2, exclusive=True, reverse=True),
            Sample(np.array([1, 2, 3]), axis=0, reverse=True, gradcheck=False),
        ],
        errors=lambda: [
            ErrorSample(ShapeError, "out of range", (2, 3), axis=2),
            ErrorSample(DTypeError, "must hold numbers", np.array(["a"]), axis=0),
        ],
        reads={"CumSum": read_cumsum},
        writes=write_cumsum,
    )
)

# ---------------------------------------------------------------------------------------- einsum


def _parsed(equation: str, ranks: Sequence[int]) -> tuple[list[str], str, str]:
    """Letters of each operand and of the result, and those that stand for the ellipsis."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    inputs = left.split(",")
    named = [part.replace("...", "", 1) for part in inputs]
    if len(inputs) != len(ranks) or not all(map(str.isalpha, filter(None, named))):
        raise OperandError(
            f"einsum: {equation!r} must name {len(ranks)} operands by letters, as in 'ij,jk->ik'"
        )
    dots = [rank - len(part) if "..." in given else 0
            for rank, part, given in zip(ranks, named, inputs, strict=True)]  # fmt: skip
    unused = [c for c in string.ascii_letters if c not in equation]
    ellipsis = "".join(unused[: max(*dots, 0)])
    if not arrow:  # as in NumPy: the ellipsis, then letters that appear once, in alphabetical order
        letters = "".join(named)
        once = "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
        right = ("..." if "..." in left else "") + once
    if "..." in left and "..." not in right and ellipsis:
        raise OperandError(f"einsum: {equation!r}: the result must have the ellipsis, too")
    if len(set(right.replace("...", "", 1))) != len(right.replace("...", "", 1)):
        raise OperandError(f"einsum: {equation!r} names a letter twice in the result")
    parts = [
        part.replace("...", ellipsis[len(ellipsis) - count :] if count > 0 else "", 1)
        for part, count in zip(inputs, dots, strict=True)
    ]
    return parts, right.replace("...", ellipsis, 1), ellipsis


def _sizes(equation: str, shapes: Sequence[tuple[int, ...]]) -> dict[str, int]:
    """How long each letter is; axes of size 1 are stretched where the ellipsis stands."""
    inputs, output, ellipsis = _parsed(equation, [len(shape) for shape in shapes])
    sizes: dict[str, int] = {}
    for letters, shape in zip(inputs, shapes, strict=True):
        if len(letters) != len(shape):
            raise ShapeError(f"einsum: {equation!r}: {letters!r} does not fit {list(shape)}")
        for letter, size in zip(letters, shape, strict=True):
            known = sizes.setdefault(letter, size)
            if letter in ellipsis and 1 in (known, size):
                sizes[letter] = known * size
            elif known != size:
                raise ShapeError(f"einsum: {equation!r}: {letter!r} is both {known} and {size}")
    if missing := set(output) - set(sizes):
        raise OperandError(f"einsum: {equation!r}: {''.join(sorted(missing))!r} is nowhere at the left")
    return sizes


def einsum_shape(*operands: ArrayType, equation: str) -> ArrayType:
    shapes = [operand.shape for operand in operands]
    sizes = _sizes(equation, shapes)
    dtypes = {operand.dtype for operand in operands}
    if len(dtypes) != 1 or operands[0].dtype.kind not in "fiu":
        listed = ", ".join(sorted(map(str, dtypes)))
        raise DTypeError(f"einsum: operands are {listed} but must be of one number type")
    output = _parsed(equation, [len(shape) for shape in shapes])[1]
    return ArrayType(tuple(sizes[letter] for letter in output), operands[0].dtype)


def _unstretched(letters: str, operand: Array, sizes: Mapping[str, int]) -> tuple[str, Array]:
    """The operand without the axes along which it is stretched."""
    kept = [n == sizes[c] for c, n in zip(letters, operand.shape, strict=True)]
    shape = [n for n, keep in zip(operand.shape, kept, strict=True) if keep]
    return "".join(c for c, keep in zip(letters, kept, strict=True) if keep), operand.reshape(shape)


def _terms(equation: str, operands: Sequence[Array]) -> tuple[list[tuple[str, Array]], str]:
    shapes = [operand.shape for operand in operands]
    sizes = _sizes(equation, shapes)
    inputs, output, _ = _parsed(equation, [len(shape) for shape in shapes])
    return [_unstretched(part, a, sizes) for part, a in zip(inputs, operands, strict=True)], output


def einsum_forward(ctx: Context, *operands: Array, equation: str) -> Array:
    terms, output = _terms(equation, operands)
    ctx.save(*operands)
    left = ",".join(letters for letters, _ in terms)
    # A copy: of one operand it may be a view.
    y: Array = as_array(np.einsum(f"{left}->{output}", *(a for _, a in terms), optimize=True)).copy("K")
    return y


def einsum_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    assert ctx.saved is not None
    operands = [a for a in ctx.saved if a is not None]
    terms, output = _terms(ctx.params["equation"], operands)
    result: list[Array | None] = []
    for i, ((letters, term), operand, need) in enumerate(zip(terms, operands, needs, strict=True)):
        if not need:
            result.append(None)
            continue
        others = [term for j, term in enumerate(terms) if j != i]
        known = set(output).union(*(p for p, _ in others))
        once = "".join(dict.fromkeys(letters))
        kept = "".join(c for c in once if c in known)  # the others were summed over alone
        equation = ",".join([output, *(p for p, _ in others)]) + "->" + kept
        gradient = np.einsum(equation, gy, *(a for _, a in others), optimize=True)
        whole = np.zeros(term.shape, gradient.dtype, like=gradient)
        sizes = dict(zip(letters, term.shape, strict=True))
        spread = gradient.reshape([sizes[c] if c in known else 1 for c in once])
        # A letter that an operand names twice is its diagonal.
        places = {
            c: np.arange(sizes[c], like=gy).reshape(-1, *[1] * (len(once) - i - 1))
            for i, c in enumerate(once)
        }
        whole[tuple(places[c] for c in letters) if len(once) < len(letters) else ...] = spread
        result.append(whole.reshape(operand.shape))
    return result


def einsum_samples() -> Iterator[Sample]:
    yield Sample((2, 3), (3, 4), equation="ij,jk->ik")
    yield Sample((2, 3, 4), (2, 5, 4), equation="bic,bjc->bij")
    yield Sample((2, 3), equation="ij->j")
    yield Sample((2, 3), (4, 3), (3,), equation="ij,kj,j->ki")
    yield Sample((3,), (4,), equation="i,j")
    yield Sample((2, 3, 4), (2, 4, 3), equation="...ij,...jk->...ik")
    yield Sample((2, 1, 3, 4), (5, 4, 3), equation="...ij,...jk->...ik", onnx=False)
    yield Sample((2, 3, 3), equation="...ii->...i")
    yield Sample((3, 3), (3,), equation="ii,i")


def einsum_errors() -> Iterator[ErrorSample]:
    yield ErrorSample(OperandError, "must name 2 operands", (2, 3), (3, 2), equation="ij->ij")
    yield ErrorSample(OperandError, "a letter twice", (2, 2), equation="ij->ii")
    yield ErrorSample(OperandError, "by letters", (2, 2), equation="i1->i")
    yield ErrorSample(OperandError, "have the ellipsis", (2, 2), equation="...i->i")
    yield ErrorSample(OperandError, "nowhere", (2, 2), equation="ij->k")
    yield ErrorSample(ShapeError, "does not fit", (2, 3, 4), equation="ij->j")
    yield ErrorSample(ShapeError, "is both 3 and 4", (2, 3), (4, 2), equation="ij,jk->ik")
    yield ErrorSample(DTypeError, "one number type", (2,), np.array([1, 2]), equation="i,i->i")


register(
    Op(
        name="einsum",
        formula="y = Σ of products over all letters of the equation that its result lacks",
        gradient="the einsum of gy and the other operands with the operand's letters as the result",
        source="ONNX Einsum-12; torch.einsum",
        shape=einsum_shape,
        forward=einsum_forward,
        backward=einsum_backward,
        samples=einsum_samples,
        errors=einsum_errors,
        reads={"Einsum": lambda n: n.emit("einsum", *n.inputs, equation=n.attribute("equation"))},
        writes=lambda w, node: w.add("Einsum", node.inputs, equation=node.params["equation"]),
    )
)
