"""LARS and LAMB: steps in proportion to the size of each parameter, for very large batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import sqrt
from typing import Any

import numpy as np

from nnlite.errors import ConfigError
from nnlite.layout import Array
from nnlite.nn.parameter import Parameter
from nnlite.optim.adaptive import decayed
from nnlite.optim.optimizer import Group, Optimizer

Params = Iterable[Parameter] | Iterable[Mapping[str, Any]]


def _norm(array: Array) -> float:
    return float(np.linalg.norm(array.ravel(order="K")))


class LARS(Optimizer):
    """Layer-wise adaptive rate scaling of SGD with momentum.

        r = trust · ‖w‖ / (‖gradient‖ + weight_decay · ‖w‖), 1 where ‖w‖ or ‖gradient‖ is 0
        v = momentum · v + lr · r · (gradient + weight_decay · w)
        w = w - v

    Raises ConfigError for options out of range. Source: You et al. 2017, arXiv:1708.03888.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-1,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 1e-3,
    ) -> None:
        options = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust}
        super().__init__(params, options)

    def check(self, group: Group) -> None:
        """Raise ConfigError where an option of ``group`` is out of range."""
        super().check(group)
        for option in ("momentum", "trust"):
            if not group[option] >= 0:
                raise ConfigError(f"LARS: {option}={group[option]} must not be negative")

    def update(self, weight: Array, gradient: Array, state: dict[str, Any], group: Group) -> None:
        """One step for one parameter, in place."""
        decay, own, slope = float(group["weight_decay"]), _norm(weight), _norm(gradient)
        ratio = group["trust"] * own / (slope + decay * own) if own and slope else 1.0
        g = decayed(weight, gradient, decay)
        g *= float(group["lr"]) * ratio
        velocity = state.setdefault("velocity", np.zeros_like(g))
        velocity *= group["momentum"]
        velocity += g
        weight -= velocity


class LAMB(Optimizer):
    """Adam whose step is scaled to the size of each parameter. In step t, with betas (b1, b2):

        m = b1 · m + (1 - b1) · gradient,  v = b2 · v + (1 - b2) · gradient²
        r = (m / (1 - b1ᵗ)) / (√(v / (1 - b2ᵗ)) + eps) + weight_decay · w
        w = w - lr · ‖w‖ / ‖r‖ · r, the ratio 1 where ‖w‖ or ‖r‖ is 0

    Raises ConfigError for options out of range. Source: You et al. 2020, arXiv:1904.00962.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def check(self, group: Group) -> None:
        """Raise ConfigError where an option of ``group`` is out of range."""
        super().check(group)
        if len(group["betas"]) != 2 or not all(0 <= beta < 1 for beta in group["betas"]):
            raise ConfigError(f"LAMB: betas={group['betas']} must be two numbers in [0, 1)")
        if not group["eps"] >= 0:
            raise ConfigError(f"LAMB: eps={group['eps']} must not be negative")

    def update(self, weight: Array, gradient: Array, state: dict[str, Any], group: Group) -> None:
        """One step for one parameter, in place."""
        b1, b2 = group["betas"]
        if not state:
            state.update(step=0, mean=np.zeros_like(weight), square=np.zeros_like(weight))
        state["step"] += 1
        mean, square, t = state["mean"], state["square"], state["step"]
        mean += (1 - b1) * (gradient - mean)
        square *= b2
        square += (1 - b2) * gradient * gradient
        step = np.sqrt(square) / sqrt(1 - b2**t) + group["eps"]
        np.divide(mean, step * (1 - b1**t), out=step)
        step += group["weight_decay"] * weight
        own, length = _norm(weight), _norm(step)
        step *= float(group["lr"]) * (own / length if own and length else 1.0)
        weight -= step
