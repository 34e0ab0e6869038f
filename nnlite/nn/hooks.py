"""Functions that a module calls before and after its forward, and after its backward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from nnlite.autograd import grad_enabled
from nnlite.layout import Array
from nnlite.ops import OPS, Context
from nnlite.tensors import Tensor, apply

Hook = Callable[..., Any]


class Handle:
    """What registering a hook returns: ``remove()`` takes the hook away again."""

    def __init__(self, hooks: list[Hook], hook: Hook) -> None:
        self._hooks, self._hook = hooks, hook
        hooks.append(hook)

    def remove(self) -> None:
        """Call the hook no more; doing so twice changes nothing."""
        if self._hook in self._hooks:
            self._hooks.remove(self._hook)


def watched(tensor: Tensor, seen: Callable[[Array], Array]) -> Tensor:
    """The same tensor; ``seen`` gets the gradient that arrives in backward and says what goes on."""

    def backward(ctx: Context, gy: Array, needs: Sequence[bool]) -> Sequence[Array | None]:
        return (seen(gy),)

    if not grad_enabled() or not tensor.requires_grad:
        return tensor
    return apply(replace(OPS["identity"], backward=backward), tensor)


def call_with_backward_hooks(
    module: Any, forward: Callable[..., Any], hooks: Sequence[Hook], args: tuple[Any, ...], kwargs: Any
) -> Any:
    """``forward(*args)``; in backward each hook gets (module, grad_inputs, grad_outputs), tuples of Tensors.

    A hook may return the gradients to hand down instead. Only a module's first output and first input
    are watched; hooks run when the gradient of that input is known, or, where it needs none, of the output.
    """
    arrived: dict[str, Array] = {}
    first = args[0] if args and isinstance(args[0], Tensor) else None
    watches_input = first is not None and grad_enabled() and first.requires_grad

    def leaving(gx: Array | None) -> Any:
        grad_inputs = (None if gx is None else Tensor(gx),)
        for hook in hooks:
            replaced = hook(module, grad_inputs, (Tensor(arrived["output"]),))
            if replaced is not None:
                grad_inputs = replaced if isinstance(replaced, tuple) else (replaced,)
        return None if grad_inputs[0] is None else grad_inputs[0]._array

    def arriving(gy: Array) -> Array:
        arrived["output"] = gy
        if not watches_input:
            leaving(None)
        return gy

    if first is not None and watches_input:
        args = (watched(first, leaving), *args[1:])
    result = forward(*args, **kwargs)
    if isinstance(result, Tensor):
        return watched(result, arriving)
    return (watched(result[0], arriving), *result[1:])
