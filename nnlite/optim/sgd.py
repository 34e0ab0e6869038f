"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from nnlite.errors import ConfigError
from nnlite.layout import Array
from nnlite.nn.parameter import Parameter
from nnlite.optim.optimizer import Group, Optimizer, copy_of, decayed


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
    ) -> None:
        options = {"lr": lr, "momentum": momentum, "dampening": dampening}
        super().__init__(params, {**options, "weight_decay": weight_decay, "nesterov": nesterov})

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
        lr, momentum = float(group["lr"]), float(group["momentum"])
        step = decayed(weight, gradient, group["weight_decay"])
        if momentum:
            velocity = state.get("velocity")
            if velocity is None:
                velocity = state["velocity"] = copy_of(step)
            else:
                velocity *= momentum
                if group["dampening"]:
                    step *= 1 - group["dampening"]
                velocity += step
            if group["nesterov"]:  # the two terms one after the other, in one buffer
                step *= lr
                weight -= step
                lr *= momentum
            np.copyto(step, velocity)
        step *= lr
        weight -= step
