"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from nnlite import memory
from nnlite.errors import ConfigError
from nnlite.layout import Array
from nnlite.nn.parameter import Parameter
from nnlite.optim.optimizer import Group, Optimizer, run_step


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, as in PyTorch.

        g = gradient + weight_decay · w
        v = momentum · v + (1 - dampening) · g        (v = g at first)
        w = w - lr · v,    with ``nesterov``    w = w - lr · (g + momentum · v)

    Raises ConfigError for options out of range, and for ``nesterov`` without momentum or with
    dampening. Source: Sutskever et al. 2013, proceedings.mlr.press/v28/sutskever13.html; torch.optim.SGD.
    """

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        options = {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay}
        super().__init__(params, {**options, "nesterov": nesterov, "maximize": maximize})

    def check(self, group: Group) -> None:
        """Raise ConfigError where an option of ``group`` is out of range."""
        super().check(group)
        momentum, dampening = group["momentum"], group["dampening"]
        if not momentum >= 0:
            raise ConfigError(f"SGD: momentum={momentum} must not be negative")
        if group["nesterov"] and (momentum == 0 or dampening != 0):
            raise ConfigError(
                f"SGD: nesterov needs momentum above 0 (is {momentum}) and dampening 0 (is {dampening})"
            )

    def update(self, weight: Array, gradient: Array, state: dict[str, Any], group: Group) -> None:
        """One step for one parameter, in place."""
        momentum = float(group["momentum"])
        # Without a velocity the kernel's is the gradient itself, as the first step wants it.
        velocity = state.get("velocity")
        new = velocity
        if momentum and velocity is None:
            new = state["velocity"] = memory.empty(weight.shape, weight.dtype, like=weight)
        options = (group["lr"], group["weight_decay"], momentum, 1 - group["dampening"], group["nesterov"])
        if not momentum:
            velocity = new = None
        run_step("sgd_step", (weight, gradient, velocity), options, (weight, new))
