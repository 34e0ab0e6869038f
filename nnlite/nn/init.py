"""Initial values of parameters, drawn from the sequence that ``nnlite.manual_seed`` starts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nnlite import random
from nnlite.layout import Array


def fan_in_uniform(shape: Sequence[int], fan_in: int) -> Array:
    """Uniform in ±1/√fan_in, float32: PyTorch's default for weights and biases.

    It is Kaiming's uniform initialisation with a = √5: √(6 / ((1 + a²) · fan_in)) = 1/√fan_in.
    Source: He et al. 2015, arXiv:1502.01852; torch.nn.Linear.reset_parameters.
    """
    bound = 1 / math.sqrt(fan_in) if fan_in else 0.0
    return random.generator().uniform(-bound, bound, tuple(shape)).astype(np.float32)
