"""Everything that decides a fine-tuning run, in one value."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from nnlite import memory
from nnlite.data import FAMILIES
from nnlite.errors import ConfigError

CACHES = ("auto", "memory", "disk", "off")
PRECISIONS: dict[str, np.dtype[Any]] = {"fp32": np.dtype(np.float32), "fp16": np.dtype(np.float16)}


@dataclass(frozen=True)
class FinetuneConfig:
    """Options of ``nnlite finetune``. Raises ConfigError that names the option, the rule and the value."""

    model: str
    data: str
    out: str = "tuned.onnx"
    run_dir: str | None = None
    """Folder for metrics, configuration and history; by default runs/<name of out>-<time> beside out."""
    unfreeze: str = "1"
    """What is trained besides the head: ``none``, the number of last stages, or ``all``."""
    tune: Literal["weights", "affine"] = "weights"
    """What is trained in the unfrozen stages: their weights, or a scale and a shift per channel (merged into
    the weights afterwards), which fits very few pictures and networks without batch normalisation."""
    fold: bool = False
    """Whether the file is written folded: for inference, no longer for training."""
    head_epochs: int = 20
    epochs: int = 8
    """Epochs with the unfrozen stages."""
    batch_size: int = 32
    head_learning_rate: float = 3e-3
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    label_smoothing: float = 0.1
    views: int = 4
    """Augmented views per picture whose frozen features the head is trained on."""
    size: int | None = None
    preprocessing: str | None = None
    head: str | None = None
    validation: float = 0.25
    seed: int = 0
    workers: int = 2
    on_bad_image: Literal["fail", "skip"] = "fail"
    flip: bool = True
    cache: Literal["auto", "memory", "disk", "off"] = "auto"
    """Where features of the frozen part are kept for the unfrozen stages; ``off`` augments in every epoch."""
    cache_dir: str | None = None
    """Folder of the files; by default below the user's cache folder."""
    cache_limit: str = "4GB"
    """How much the files may take together; in memory at most a quarter of the machine's."""
    cache_precision: Literal["fp32", "fp16"] = "fp32"
    """How the files hold features; fp16 halves them, rounded to 11 bits."""
    baselines: bool = True

    def __post_init__(self) -> None:
        for name, least in (
            ("head_epochs", 1), ("epochs", 0), ("batch_size", 1), ("views", 1), ("workers", 0), ("seed", 0)
        ):  # fmt: skip
            if getattr(self, name) < least:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least {least}")
        if self.size is not None and not 16 <= self.size <= 4096:
            raise ConfigError(f"size={self.size} must be 16 to 4096 pixels")
        for name in ("head_learning_rate", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}={getattr(self, name)} must be positive")
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(f"label_smoothing={self.label_smoothing} must be in [0, 1)")
        if not self.weight_decay >= 0:
            raise ConfigError(f"weight_decay={self.weight_decay} must not be negative")
        if not 0 < self.validation < 1:
            raise ConfigError(f"validation={self.validation} must be between 0 and 1")
        if self.unfreeze not in ("none", "all") and not (
            self.unfreeze.isdecimal() and int(self.unfreeze) > 0
        ):
            raise ConfigError(f"unfreeze={self.unfreeze!r} must be none, all or the number of last stages")
        if self.preprocessing is not None and self.preprocessing not in FAMILIES:
            raise ConfigError(f"preprocessing={self.preprocessing!r} must be one of {', '.join(FAMILIES)}")
        if self.on_bad_image not in ("fail", "skip"):
            raise ConfigError(f"on_bad_image={self.on_bad_image!r} must be fail or skip")

        choices = {"tune": ("weights", "affine"), "cache": CACHES, "cache_precision": tuple(PRECISIONS)}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ConfigError(f"{name}={getattr(self, name)!r} must be one of {', '.join(known)}")
        memory.parse_bytes("cache_limit", self.cache_limit)

    def to_dict(self) -> dict[str, Any]:
        """The options as plain JSON types."""
        return asdict(self)
