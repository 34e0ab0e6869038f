"""Adam, and Adam with decoupled weight decay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import sqrt
from typing import Any

import numpy as np

from nnlite.errors import ConfigError
from nnlite.layout import Array
from nnlite.nn.parameter import Parameter
from nnlite.optim.adaptive import decayed
from nnlite.optim.optimizer import Group, Optimizer, run_step, zeros_of


class Adam(Optimizer):
    """Adam, as in PyTorch. In step t, with betas (b1, b2):

        g = gradient + weight_decay · w
        m = b1 · m + (1 - b1) · g
        v = b2 · v + (1 - b2) · g²
        w = w - lr · (m / (1 - b1ᵗ)) / (√(v / (1 - b2ᵗ)) + eps)

    With ``amsgrad`` the last line has the largest v so far. Raises ConfigError for options out of range.
    Source: Kingma and Ba 2015, arXiv:1412.6980; Reddi et al. 2018, arXiv:1904.09237; torch.optim.Adam.
    """

    decoupled = False
    """True: weight decay shrinks the weights themselves and stays out of the moments."""

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**options, "amsgrad": amsgrad, "maximize": maximize})

    def check(self, group: Group) -> None:
        """Raise ConfigError where an option of ``group`` is out of range."""
        super().check(group)
        name = type(self).__name__
        if len(group["betas"]) != 2 or not all(0 <= beta < 1 for beta in group["betas"]):
            raise ConfigError(f"{name}: betas={group['betas']} must be two numbers in [0, 1)")
        if not group["eps"] >= 0:
            raise ConfigError(f"{name}: eps={group['eps']} must not be negative")

    def update(self, weight: Array, gradient: Array, state: dict[str, Any], group: Group) -> None:
        """One step for one parameter, in place."""
        lr, decay = float(group["lr"]), float(group["weight_decay"])
        b1, b2 = group["betas"]
        shrink = 1.0
        if self.decoupled:
            shrink, decay = 1 - lr * decay, 0.0
        if not state:
            state.update(step=0, mean=zeros_of(weight), square=zeros_of(weight))
        state["step"] += 1
        mean, square, t = state["mean"], state["square"], state["step"]
        if group["amsgrad"]:
            g = decayed(weight, gradient, decay)
            weight *= shrink
            mean += (1 - b1) * (g - mean)
            square *= b2
            square += (1 - b2) * g * g
            largest = state.setdefault("largest", zeros_of(weight))
            np.maximum(largest, square, out=largest)
            weight -= lr / (1 - b1**t) * mean / (np.sqrt(largest) / sqrt(1 - b2**t) + group["eps"])
            return
        options = (shrink, decay, b1, 1 - b1, b2, 1 - b2, 1 / sqrt(1 - b2**t), group["eps"], lr / (1 - b1**t))
        run_step("adam_step", (weight, gradient, mean, square), options, (weight, mean, square))


class AdamW(Adam):
    """:class:`Adam` whose weight decay is decoupled: first w = w · (1 - lr · weight_decay), then g is
    the gradient alone.

    Source: Loshchilov and Hutter 2019, arXiv:1711.05101; torch.optim.AdamW.
    """

    decoupled = True

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)
