"""Everything that decides a fine-tuning run, in one value.

A field is all that an option needs: the command line, the configuration file and the checks read them here.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Literal

from nnlite.errors import ConfigError
from nnlite.transfer.options import check, option

UNFREEZE = "must be none, all or the number of last stages"


def _unfreeze(value: str) -> str | None:
    known = value in ("none", "all") or (value.isascii() and value.isdecimal() and int(value) > 0)
    return None if known else UNFREEZE


def _preprocessing(value: str) -> str | None:
    from nnlite.data import FAMILIES, Preprocessing

    if "=" not in value and value not in FAMILIES:
        return f"must be one of {', '.join(FAMILIES)}"
    try:
        Preprocessing.told(value, 224)
    except ConfigError as error:
        return str(error).partition(": ")[2]
    return None


def _augment(value: str) -> str | None:
    from nnlite.data.augment import check_augment

    return check_augment(value)


def _device(value: str) -> str | None:
    return (
        None if re.fullmatch(r"cpu|auto|cuda(:\d+)?", value) else "must be cpu, cuda, cuda:<number> or auto"
    )


def _bytes(value: str) -> str | None:
    from nnlite import memory

    try:
        memory.parse_bytes("", value)
    except ConfigError as error:
        return str(error).partition(" ")[2]
    return None


@dataclass(frozen=True)
class FinetuneConfig:
    """Options of ``nnlite finetune``. Raises ConfigError that names the option, the rule and the value."""

    model: str
    data: str
    out: str = option("tuned.onnx", "The tuned model.", metavar="FILE")
    run_dir: str | None = option(
        None, "Folder for metrics, configuration and history; by default runs/NAME-TIME beside --out.",
        metavar="DIR",
    )  # fmt: skip
    recipe: Literal["auto", "probe", "partial", "full", "gradual"] = option(
        "auto",
        "The head alone, solved exactly; the last stages with it; everything; one stage more at a time.",
    )
    unfreeze: str | None = option(
        None, "What is trained besides the head: nothing, the last N stages, everything. "
        "By default the recipe decides.", metavar="none|N|all", check=_unfreeze,
    )  # fmt: skip
    budget: float | None = option(
        None, "Minutes that --recipe auto may plan for.", metavar="MINUTES", above=0
    )
    tune: Literal["weights", "affine"] = option(
        "weights", "In the unfrozen stages train the weights, or a scale and a shift per channel."
    )
    fold: bool = option(
        False, "Write batch normalisation folded into the layers: for inference, no longer for training.",
        negative="",
    )  # fmt: skip
    head_epochs: int = option(20, "Epochs of the head alone.", least=1)
    epochs: int = option(8, "Epochs with the unfrozen stages.", least=0)
    batch_size: int = option(32, "Pictures per step.", least=1)
    head_learning_rate: float = option(3e-3, "For the head alone.", above=0)
    learning_rate: float = option(1e-4, "For the unfrozen stages.", above=0)
    stage_decay: float = option(
        0.7, "Learning rate of each earlier stage, as a part of the next one's.", above=0, most=1
    )
    weight_decay: float = option(0.01, "Decoupled, as in AdamW.", least=0)
    label_smoothing: float = option(0.1, "Part of each label spread out.", least=0, below=1)
    l2_sp: float = option(
        0.0, "Pull of pretrained weights towards where they began, instead of their decay.", least=0
    )
    ema: float = option(
        0.0, "Decay of an average of the weights, which is then what is kept; 0 for none.", least=0, below=1
    )
    clip: float = option(0.0, "Largest norm of a step's gradients; 0 for any.", least=0)
    accumulate: int = option(1, "Batches whose gradients make one step.", least=1)
    warmup: float = option(
        0.1, "Part of a phase's steps, at most an epoch, in which learning rates rise.", least=0, below=1
    )
    patience: int = option(
        0, "Epochs without improvement after which a phase ends, judged by training pictures that are set "
        "aside; 0 for none.", least=0,
    )  # fmt: skip
    set_aside: float = option(
        0.1, "Part of the training pictures set aside for --patience and --calibrate.", above=0, below=1
    )
    calibrate: bool = option(
        False, "Set training pictures aside, and scale the logits so that probabilities fit them.",
        negative="",
    )  # fmt: skip
    train_batch_norm: bool = option(
        False, "Train unfrozen batch normalisation, with the statistics of each batch, or leave it as it is.",
        negative="--freeze-batch-norm",
    )  # fmt: skip
    views: int = option(4, "Views per picture that the head learns from.", least=1)
    cache: Literal["auto", "memory", "disk", "off"] = option(
        "auto",
        "Where features of the frozen part are kept for the stages; off augments anew in every epoch.",
    )
    cache_dir: str | None = option(None, "Folder for features on disk, shared between runs.", metavar="DIR")
    cache_limit: str = option("4GB", "Most that it may hold.", metavar="SIZE", check=_bytes)
    cache_precision: Literal["fp32", "fp16"] = option("fp32", "Numbers on disk; fp16 halves them.")
    memory: str | None = option(
        None, "Most that the process may have resident: batch, features and report are chosen to fit.",
        metavar="SIZE", check=_bytes,
    )  # fmt: skip
    frozen_precision: Literal["fp32", "bf16", "int8", "auto"] = option(
        "fp32",
        "Numbers that the frozen part computes with; auto takes the fastest that costs little. "
        "What is reported is always the exported fp32 model.",
    )
    head: str | None = option(None, "The layer to replace, where it is not found.", metavar="NAME")
    augment: str = option(
        "light", "How training pictures vary: none, light, strong, randaugment, or a list such as "
        "crop=0.3,flip,rotate=15,jitter (see docs/finetuning.md).", metavar="POLICY", check=_augment,
    )  # fmt: skip
    channels: Literal["auto", "3", "1", "4"] = option(
        "auto", "Of the pictures: as the model takes them, colour, grey, or four (opacity, infrared, depth), "
        "for which the first layer's weights are adapted.",
    )  # fmt: skip
    flip: bool = option(True, "Mirror pictures left and right.")
    mix: Literal["none", "mixup", "cutmix"] = option(
        "none", "Mix pictures, or features of them, and their labels in pairs while the stages are trained."
    )
    class_weights: Literal["none", "auto"] = option(
        "none", "Weigh the loss so that rare classes or labels count as much as frequent ones."
    )
    sampler: Literal["shuffled", "balanced"] = option(
        "shuffled", "How an epoch visits pictures: each once, or every class equally often."
    )
    baselines: bool = option(True, "Compare on the same split.")
    report: bool = option(True, "Write report.html into the run folder.")
    pictures: bool = option(True, "Show pictures in the report, small and without EXIF.")
    tensorboard: bool = option(
        False, "Log for TensorBoard into the run folder; needs nnlite[tensorboard].", negative=""
    )
    preprocessing: str | None = option(
        None,
        "How pictures are normalised: imagenet, inception, half, lite, unit, raw255 or caffe_bgr, or fields "
        "such as lite,crop=0.875,filter=bicubic or mean=127,std=128,scale=1. "
        "By default the model's metadata or its name decide.",
        metavar="NAME", check=_preprocessing,
    )  # fmt: skip
    size: int | None = option(
        None, "Side of the input. By default the model decides.", metavar="PIXELS", least=16, most=4096
    )
    task: Literal["auto", "single", "multi", "regression"] = option(
        "auto", "What a CSV or .npz tells of a picture: one class, several labels, numbers."
    )
    images: str | None = option(
        None, "Folder that a CSV, COCO or YOLO file's pictures are in; by default beside it.", metavar="DIR"
    )
    validation: float = option(0.25, "Part held out where DATA does not say what is.", above=0, below=1)
    checkpoint_minutes: float = option(
        5.0, "Time between checkpoints within an epoch; after every epoch there is one anyway.", above=0
    )
    seed: int = option(0, "Seed of everything random.", least=0)
    split_seed: int | None = option(None, "Seed of what is held out, where that is not --seed.", least=0)
    device: str = option(
        "cpu", "Where it is computed: cpu, cuda (cuda:1 for the second GPU), or auto for a GPU where one can "
        "be used.", metavar="cpu|cuda|auto", check=_device,
    )  # fmt: skip
    retry_smaller: bool = option(
        False, "Where memory runs out, learn from each batch in parts: the same steps, more slowly.",
        negative="",
    )  # fmt: skip
    workers: int = option(2, "Threads that decode pictures.", least=0)
    on_bad_image: Literal["fail", "skip"] = option(
        "fail", "Stop at a picture that cannot be read, or leave it out and list it."
    )

    def __post_init__(self) -> None:
        check(self)

    def to_dict(self) -> dict[str, Any]:
        """The options as plain JSON types."""
        return asdict(self)
