"""Recipes: which phases of training a configuration asks for, in which order."""

from __future__ import annotations

from nnlite.transfer.config import FinetuneConfig


def phases_of(config: FinetuneConfig) -> list[str]:
    """Names of :data:`nnlite.transfer.phases.PHASES`."""
    return ["head", "stages"] if config.unfreeze != "none" and config.epochs else ["head"]
