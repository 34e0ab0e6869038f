"""Transfer learning: freeze, new head, fine-tune, evaluate against honest baselines, write back.

Names are loaded when they are first used: the command line reads the options without NumPy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOME = {
    "Attribution": "transfer.attributor",
    "Attributor": "transfer.attributor",
    "Callback": "transfer.callbacks",
    "Classifier": "transfer.classifier",
    "FinetuneConfig": "transfer.config",
    "FinetuneResult": "transfer.run",
    "Head": "graph",
    "ImageClassifier": "transfer.estimator",
    "choose_cut": "transfer.stages",
    "compare": "transfer.comparison",
    "evaluate": "transfer.classifier",
    "find_head": "graph",
    "finetune": "transfer.run",
    "freeze_below": "transfer.stages",
    "predict": "transfer.classifier",
    "replace_head": "graph",
    "resume": "transfer.run",
    "stage_cuts": "transfer.stages",
    "types_for": "transfer.stages",
}

if TYPE_CHECKING:
    from nnlite.graph import Head, find_head, replace_head
    from nnlite.transfer.attributor import Attribution, Attributor
    from nnlite.transfer.callbacks import Callback
    from nnlite.transfer.classifier import Classifier, evaluate, predict
    from nnlite.transfer.comparison import compare
    from nnlite.transfer.config import FinetuneConfig
    from nnlite.transfer.estimator import ImageClassifier
    from nnlite.transfer.run import FinetuneResult, finetune, resume
    from nnlite.transfer.stages import choose_cut, freeze_below, stage_cuts, types_for

__all__ = [
    "Attribution",
    "Attributor",
    "Callback",
    "Classifier",
    "FinetuneConfig",
    "FinetuneResult",
    "Head",
    "ImageClassifier",
    "choose_cut",
    "compare",
    "evaluate",
    "find_head",
    "finetune",
    "freeze_below",
    "predict",
    "replace_head",
    "resume",
    "stage_cuts",
    "types_for",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'nnlite.transfer' has no attribute {name!r}")
    value = getattr(import_module(f"nnlite.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
