"""Optimisers and learning-rate schedules; formulas and names as in PyTorch."""

from __future__ import annotations

from nnlite.optim.adam import Adam, AdamW
from nnlite.optim.adaptive import Adagrad, RMSprop
from nnlite.optim.average import EMA
from nnlite.optim.layerwise import LAMB, LARS
from nnlite.optim.more_schedules import (
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LinearLR,
    MultiStepLR,
    ReduceLROnPlateau,
    StepLR,
)
from nnlite.optim.one_cycle import OneCycleLR
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
    "CosineAnnealingLR",
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
