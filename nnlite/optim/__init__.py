"""Optimisers and learning-rate schedules; formulas and names as in PyTorch."""

from __future__ import annotations

from nnlite.optim.adam import Adam, AdamW
from nnlite.optim.adaptive import Adagrad, RMSprop
from nnlite.optim.average import EMA
from nnlite.optim.layerwise import LAMB, LARS
from nnlite.optim.more_schedules import (
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    StepLR,
)
from nnlite.optim.optimizer import Optimizer
from nnlite.optim.schedule import CosineSchedule, LambdaSchedule, Schedule
from nnlite.optim.sgd import SGD

__all__ = [
    "EMA",
    "LAMB",
    "LARS",
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "CosineAnnealingWarmRestarts",
    "CosineSchedule",
    "ExponentialLR",
    "LambdaSchedule",
    "LinearLR",
    "MultiStepLR",
    "OneCycleLR",
    "Optimizer",
    "RMSprop",
    "ReduceLROnPlateau",
    "Schedule",
    "StepLR",
]
