"""RMSprop and Adagrad: steps divided by the size of past gradients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from nnlite.errors import ConfigError
from nnlite.layout import Array
from nnlite.nn.parameter import Parameter
from nnlite.optim.optimizer import Group, Optimizer, copy_of

Params = Iterable[Parameter] | Iterable[Mapping[str, Any]]


def decayed(weight: Array, gradient: Array, weight_decay: float) -> Array:
    """gradient + weight_decay · weight in a new array."""
    result = copy_of(gradient)
    if weight_decay:
        result += weight_decay * weight
    return result


def _not_negative(name: str, group: Group, *options: str) -> None:
    for option in options:
        if not group[option] >= 0:
            raise ConfigError(f"{name}: {option}={group[option]} must not be negative")


class RMSprop(Optimizer):
    """RMSprop, as in PyTorch.

        g = gradient + weight_decay · w
        s = alpha · s + (1 - alpha) · g²
        a = √s + eps, with ``centered`` a = √(s - m²) + eps, m = alpha · m + (1 - alpha) · g
        w = w - lr · g / a, with momentum v = momentum · v + g / a, w = w - lr · v

    Raises ConfigError for options out of range.
    Source: Hinton, Coursera lecture 6e, 2012; centred: Graves 2013, arXiv:1308.0850; torch.optim.RMSprop.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        options = {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay}
        more = {"momentum": momentum, "centered": centered, "maximize": maximize}
        super().__init__(params, {**options, **more})

    def check(self, group: Group) -> None:
        """Raise ConfigError where an option of ``group`` is out of range."""
        super().check(group)
        _not_negative("RMSprop", group, "eps", "momentum", "alpha")

    def update(self, weight: Array, gradient: Array, state: dict[str, Any], group: Group) -> None:
        """One step for one parameter, in place."""
        g, alpha = decayed(weight, gradient, group["weight_decay"]), group["alpha"]
        for name in ("square", *(["mean"] if group["centered"] else [])):
            state.setdefault(name, np.zeros_like(g))
        square = state["square"]
        square *= alpha
        square += (1 - alpha) * g * g
        if group["centered"]:
            mean = state["mean"]
            mean += (1 - alpha) * (g - mean)
            size = np.sqrt(square - mean * mean)
        else:
            size = np.sqrt(square)
        size += group["eps"]
        g /= size
        if group["momentum"]:
            velocity = state.setdefault("velocity", np.zeros_like(g))
            velocity *= group["momentum"]
            velocity += g
            g = velocity
        weight -= float(group["lr"]) * g


class Adagrad(Optimizer):
    """Adagrad, as in PyTorch. In step t:

        g = gradient + weight_decay · w
        s = s + g²                                    (initial_accumulator_value at first)
        w = w - lr / (1 + (t - 1) · lr_decay) · g / (√s + eps)

    Raises ConfigError for options out of range.
    Source: Duchi et al. 2011, jmlr.org/papers/v12/duchi11a.html; torch.optim.Adagrad.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
    ) -> None:
        options = {"lr": lr, "lr_decay": lr_decay, "weight_decay": weight_decay, "eps": eps}
        more = {"initial_accumulator_value": initial_accumulator_value, "maximize": maximize}
        super().__init__(params, {**options, **more})

    def check(self, group: Group) -> None:
        """Raise ConfigError where an option of ``group`` is out of range."""
        super().check(group)
        _not_negative("Adagrad", group, "lr_decay", "initial_accumulator_value", "eps")

    def update(self, weight: Array, gradient: Array, state: dict[str, Any], group: Group) -> None:
        """One step for one parameter, in place."""
        g = decayed(weight, gradient, group["weight_decay"])
        if not state:
            state.update(step=0, square=np.full_like(g, group["initial_accumulator_value"]))
        rate = float(group["lr"]) / (1 + state["step"] * float(group["lr_decay"]))
        state["step"] += 1
        square = state["square"]
        square += g * g
        g /= np.sqrt(square) + group["eps"]
        weight -= rate * g
