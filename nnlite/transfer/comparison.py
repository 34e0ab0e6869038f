"""The recipes side by side: the same split, the same seeds, mean and spread."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from nnlite.errors import ConfigError
from nnlite.transfer.callbacks import Callback
from nnlite.transfer.config import FinetuneConfig
from nnlite.transfer.run import FinetuneResult, finetune
from nnlite.transfer.run_folder import RunFolder

RECIPES: tuple[Literal["partial", "full"], ...] = ("partial", "full")
"""What is trained for each seed; the other rows are the baselines of the first of them."""


def compare(config: FinetuneConfig, seeds: int = 1, *, callbacks: Sequence[Callback] = ()) -> FinetuneResult:
    """Run ``config``, then majority, scratch, probe, partial and full with ``seeds`` seeds on its split.

    The split of the data stays that of ``config.seed``; initial weights, order and augmentation change.
    Figures are added to metrics.json as ``compare``: {name: {values, mean, spread}}, the spread being the
    standard deviation over the seeds (0 for one). Raises ConfigError below one seed.
    """
    if seeds < 1:
        raise ConfigError(f"seeds={seeds} must be at least 1")
    split = config.seed if config.split_seed is None else config.split_seed
    result = finetune(config, callbacks=callbacks)
    folder = result.run_dir / "compare"
    folder.mkdir(exist_ok=True)
    values: dict[str, list[float]] = {}
    for seed in range(config.seed, config.seed + seeds):
        for recipe in RECIPES:
            name = f"{recipe}-{seed}"
            one = replace(
                config, recipe=recipe, unfreeze=None, seed=seed, split_seed=split, report=False,
                baselines=recipe == RECIPES[0], out=str(folder / f"{name}.onnx"), run_dir=str(folder / name),
            )  # fmt: skip
            report = finetune(one, callbacks=callbacks).metrics
            for key in ("majority", "scratch", "probe"):
                if known := report.get("baselines", {}).get(key):  # a budget of memory may leave one out
                    values.setdefault(key, []).append(float(known["quality"]))
            values.setdefault(recipe, []).append(float(report["quality"]["value"]))
    result.metrics["compare"] = {name: summary(listed) for name, listed in values.items()}
    RunFolder(result.run_dir).write_json("metrics.json", result.metrics)
    return result


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Mean and standard deviation of one figure over the seeds."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"values": list(values), "mean": statistics.fmean(values), "spread": spread}
