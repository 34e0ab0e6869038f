"""Activation checkpointing: less memory for one more forward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nnlite import autograd, random
from nnlite.errors import GradientError, OperandError
from nnlite.layout import Array
from nnlite.node import Value
from nnlite.ops import ArrayType, Context, ErrorSample, Op, Sample
from nnlite.tensors import Tensor


def checkpoint(function: Callable[..., Any], *inputs: Tensor) -> Any:
    """``function(*inputs)``, remembering nothing of what lies between: backward computes it again.

    A network of n equal parts, each checkpointed, keeps n results and one part's activations instead of
    all. ``function`` takes and returns Tensors (one, or a tuple) and must compute the same thing twice;
    random numbers are the same both times. Running statistics of a batch normalisation in training mode
    are updated both times. Parameters that it uses get their gradients. Raises GradientError when it
    uses a Tensor that was computed outside and is not among ``inputs``.

    Source: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost", arXiv:1604.06174;
    torch.utils.checkpoint.
    """
    for i, tensor in enumerate(inputs):
        if not isinstance(tensor, Tensor):
            raise OperandError(f"checkpoint: input {i} is a {type(tensor).__name__}, not a Tensor")
    if not autograd.grad_enabled():
        return function(*inputs)
    state = random.get_state()
    with autograd.no_grad(), autograd.watching() as seen:
        result = function(*(tensor.detach() for tensor in inputs))
    outputs = (result,) if isinstance(result, Tensor) else tuple(result)
    leaves = [value for value in seen if value.requires_grad]
    if any(value.node is not None for value in leaves):
        raise GradientError(
            "checkpoint: the function uses a tensor that was computed outside of it; pass it as an input"
        )
    values = [*(tensor._value for tensor in inputs), *leaves]
    needs = tuple(value is not None and value.requires_grad for value in values)
    if not any(needs):
        return result
    context = Context({}, needs)
    context.save(*(tensor._array for tensor in inputs))
    op = _op(function, leaves, state, outputs)
    recorded = autograd.record(op, context, values, [ArrayType(t.shape, t.dtype) for t in outputs])
    tensors = tuple(Tensor(t._array, _value=value) for t, value in zip(outputs, recorded, strict=True))
    return tensors[0] if isinstance(result, Tensor) else tensors


def _op(
    function: Callable[..., Any],
    leaves: Sequence[Value],
    state: tuple[int, int],
    outputs: Sequence[Tensor],
) -> Op:
    """An op whose backward computes ``function`` once more, and then goes back through it."""

    def backward(ctx: Context, gy: Any, needs: tuple[bool, ...]) -> Sequence[Array | None]:
        assert ctx.saved is not None
        arrays = [array for array in ctx.saved if array is not None]
        fresh = [Tensor(array, requires_grad=need) for array, need in zip(arrays, needs, strict=False)]
        now = random.get_state()
        random.set_state(state)
        try:
            with autograd.set_grad_enabled(True):
                result = function(*fresh)
        finally:
            random.set_state(now)
        again = (result,) if isinstance(result, Tensor) else tuple(result)
        arriving = gy if isinstance(gy, tuple) else (gy,)
        pairs = [
            (t._value, g)
            for t, g in zip(again, arriving, strict=True)
            if t._value is not None and g is not None
        ]
        targets = [*(t._value for t in fresh), *leaves]
        wanted = [v for v, need in zip(targets, needs, strict=True) if need and v is not None]
        found = autograd.gradients([v for v, _ in pairs], [g for _, g in pairs], wanted, False)
        return [None if v is None else found.get(v) for v in targets]

    types = tuple(ArrayType(t.shape, t.dtype) for t in outputs)
    return Op(
        name="checkpoint",
        formula="function(inputs)",
        gradient="that of the function, computed once more",
        shape=lambda *_, **__: types,
        forward=lambda *_, **__: (),
        backward=backward,
        samples=lambda: [Sample()],
        errors=lambda: [ErrorSample(GradientError, "computed outside")],
        writes=None,
    )
