"""Transfer learning: freeze, new head, fine-tune, evaluate against honest baselines, write back."""

from __future__ import annotations

from nnlite.graph import Head, find_head, replace_head
from nnlite.transfer.config import FinetuneConfig
from nnlite.transfer.evaluate import Classifier, evaluate, predict
from nnlite.transfer.finetune import FinetuneResult, finetune
from nnlite.transfer.stages import choose_cut, freeze_below, stage_cuts, types_for

__all__ = [
    "Classifier",
    "FinetuneConfig",
    "FinetuneResult",
    "Head",
    "choose_cut",
    "evaluate",
    "find_head",
    "finetune",
    "freeze_below",
    "predict",
    "replace_head",
    "stage_cuts",
    "types_for",
]
