"""Layers without parameters: activations, flatten, and Sequential."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

from nnlite import functional as F
from nnlite.errors import ConfigError, ShapeError
from nnlite.nn.layers import BatchNorm
from nnlite.nn.module import Module
from nnlite.tensors import Tensor


def _absorbs(module: Module, following: Module) -> bool:
    """True where ``module`` can apply ``following`` in its own pass over memory: the same numbers, sooner."""
    return isinstance(module, BatchNorm) and module.activation is None and type(following) in _ABSORBED


class Sequential(Module):
    """Modules one after another: ``Sequential(a, b)`` or ``Sequential({"conv": a, "act": b})``.

    They are named "0", "1", ... or by the mapping's keys. Raises ConfigError for anything but
    modules and for a name that cannot be an attribute's.
    """

    def __init__(self, *modules: Module | Mapping[str, Module]) -> None:
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            named = dict(modules[0])
        else:
            named = {str(i): module for i, module in enumerate(modules)}  # type: ignore[misc]
        for name, module in named.items():
            if not isinstance(module, Module):
                raise ConfigError(f"Sequential: {name}={module!r} must be a Module")
            if "." in name or hasattr(type(self), name):
                raise ConfigError(f"Sequential: {name!r} cannot name a module; choose another name")
            setattr(self, name, module)

    def forward(self, x: Tensor) -> Tensor:
        """The output of the last module. A batch normalisation takes a ReLU or ReLU6 after it along."""
        modules = list(self)
        for i, module in enumerate(modules):
            if i and _absorbs(modules[i - 1], module):
                continue
            following = modules[i + 1] if i + 1 < len(modules) else None
            if following is not None and _absorbs(module, following):
                x = module(x, activation=_ABSORBED[type(following)])
            else:
                x = module(x)
        return x

    def append(self, module: Module) -> Sequential:
        """Add a module at the end."""
        if not isinstance(module, Module):
            raise ConfigError(f"Sequential: {module!r} must be a Module")
        number = len(self)
        while hasattr(self, str(number)):  # a slice keeps the numbers that its modules had
            number += 1
        setattr(self, str(number), module)
        return self

    def __len__(self) -> int:
        return len(list(self.children()))

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> Sequential: ...
    def __getitem__(self, index: int | slice) -> Module:
        """One module, or those of a slice under their names."""
        if isinstance(index, slice):
            return Sequential(dict(list(self.named_children())[index]))
        return list(self.children())[index]


class Identity(Module):
    """y = x, whatever arguments it is made with."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        """The input itself."""
        return x


class Flatten(Module):
    """Axes start_dim..end_dim merged into one: [N,C,H,W] to [N,C·H·W] by default."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Tensor) -> Tensor:
        """The same elements with merged axes."""
        return F.flatten(x, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        """Options, for repr."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """Axis ``dim`` cut into axes of the sizes ``unflattened_size``, one of which may be -1."""

    def __init__(self, dim: int, unflattened_size: Sequence[int]) -> None:
        self.dim, self.unflattened_size = dim, tuple(unflattened_size)

    def forward(self, x: Tensor) -> Tensor:
        """The same elements with one axis cut."""
        if not -x.ndim <= self.dim < x.ndim:
            raise ShapeError(f"Unflatten: axis {self.dim} is out of range for {x.ndim} axes")
        at = self.dim % x.ndim
        return x.reshape(*x.shape[:at], *self.unflattened_size, *x.shape[at + 1 :])

    def extra_repr(self) -> str:
        """Options, for repr."""
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"


# ------------------------------------------------------------------------------------ activations


class ReLU(Module):
    """max(x, 0). ``inplace`` is taken for PyTorch's sake and changes nothing."""

    def __init__(self, inplace: bool = False) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        """max(x, 0)."""
        return F.relu(x)


class ReLU6(Module):
    """min(max(x, 0), 6). ``inplace`` is taken for PyTorch's sake and changes nothing."""

    def __init__(self, inplace: bool = False) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        """min(max(x, 0), 6)."""
        return F.relu6(x)


_ABSORBED: dict[type[Module], str] = {ReLU: "relu", ReLU6: "relu6"}


class Sigmoid(Module):
    """1 / (1 + exp(-x))."""

    def forward(self, x: Tensor) -> Tensor:
        """1 / (1 + exp(-x))."""
        return F.sigmoid(x)


class Tanh(Module):
    """Hyperbolic tangent."""

    def forward(self, x: Tensor) -> Tensor:
        """Hyperbolic tangent of x."""
        return F.tanh(x)


class Softmax(Module):
    """exp(x) / Σ exp(x) along axis ``dim``."""

    def __init__(self, dim: int = -1) -> None:
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """exp(x) / Σ exp(x)."""
        return F.softmax(x, self.dim)

    def extra_repr(self) -> str:
        """Options, for repr."""
        return f"dim={self.dim}"
