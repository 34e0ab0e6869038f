"""Optimisers and learning-rate schedules; formulas and names as in PyTorch."""

from __future__ import annotations

from nnlite.optim.adam import Adam, AdamW
from nnlite.optim.optimizer import Optimizer
from nnlite.optim.schedule import CosineSchedule, LambdaSchedule, Schedule
from nnlite.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "CosineSchedule", "LambdaSchedule", "Optimizer", "Schedule"]
