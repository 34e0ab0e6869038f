"""Layers without parameters: activations, pooling, flatten, and Sequential."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nnlite import functional as F
from nnlite.errors import ConfigError
from nnlite.functional import Size
from nnlite.geometry import Padding, pair
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

    def __len__(self) -> int:
        return len(list(self.children()))

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    def __getitem__(self, index: int) -> Module:
        return list(self.children())[index]


class Identity(Module):
    """y = x."""

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


# ---------------------------------------------------------------------------------------- pooling


class MaxPool2d(Module):
    """Maximum over windows: x [N,C,H,W] to [N,C,P,Q]; ``stride`` defaults to ``kernel_size``.

    Raises ShapeError for sizes below 1. Source: op ``max_pool2d``; torch.nn.MaxPool2d.
    """

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Padding = 0,
        dilation: Size = 1,
        *,
        ceil_mode: bool = False,
    ) -> None:
        self.kernel_size = pair("MaxPool2d", "kernel_size", kernel_size, 1)
        self.stride = self.kernel_size if stride is None else pair("MaxPool2d", "stride", stride, 1)
        self.dilation = pair("MaxPool2d", "dilation", dilation, 1)
        self.padding, self.ceil_mode = padding, ceil_mode

    def forward(self, x: Tensor) -> Tensor:
        """The largest element of each window."""
        options = (self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)
        return F.max_pool2d(x, *options)

    def extra_repr(self) -> str:
        """Options, for repr."""
        text = f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"
        return f"{text}, dilation={self.dilation}, ceil_mode={self.ceil_mode}"


class AvgPool2d(Module):
    """Mean over windows: x [N,C,H,W] to [N,C,P,Q]; ``stride`` defaults to ``kernel_size``.

    ``count_include_pad``: padding counts as elements of value 0. Raises ShapeError for sizes below 1.
    Source: op ``avg_pool2d``; torch.nn.AvgPool2d.
    """

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Padding = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        self.kernel_size = pair("AvgPool2d", "kernel_size", kernel_size, 1)
        self.stride = self.kernel_size if stride is None else pair("AvgPool2d", "stride", stride, 1)
        self.padding, self.ceil_mode = padding, ceil_mode
        self.count_include_pad = count_include_pad

    def forward(self, x: Tensor) -> Tensor:
        """The mean of each window."""
        options = (self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)
        return F.avg_pool2d(x, *options)

    def extra_repr(self) -> str:
        """Options, for repr."""
        text = f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"
        return f"{text}, ceil_mode={self.ceil_mode}, count_include_pad={self.count_include_pad}"


class AdaptiveAvgPool2d(Module):
    """Mean over as many windows as ``output_size`` says: x [N,C,H,W] to [N,C,*output_size].

    Raises ShapeError for sizes below 1. Source: op ``adaptive_avg_pool2d``; torch.nn.AdaptiveAvgPool2d.
    """

    def __init__(self, output_size: Size) -> None:
        self.output_size = pair("AdaptiveAvgPool2d", "output_size", output_size, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The mean of each window."""
        return F.adaptive_avg_pool2d(x, self.output_size)

    def extra_repr(self) -> str:
        """Options, for repr."""
        return f"output_size={self.output_size}"
