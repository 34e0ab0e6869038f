"""Accuracy on several sets, beside PyTorch with the same recipe and scikit-learn on the same features.

    python benchmarks/results.py MODEL DATA [--size 128] [--train 400] [--held 200] [--seeds 3] [--same-start]

MODEL is an ONNX classifier, DATA anything that nnlite reads; --train and --held take so many pictures,
evenly spread. The recipe is the default one without augmentation: a head on frozen features, then the last
stage with it. With --same-start PyTorch begins with nnlite's first weights and sees its batches, so that
what differs is the arithmetic alone. Needs PyTorch and scikit-learn. ``python benchmarks/result_sets.py``
prepares the sets.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path

import numpy as np
import torch_results

from nnlite import onnx, random
from nnlite.data import Dataset, open_dataset
from nnlite.transfer import FinetuneConfig, choose_cut, find_head, finetune, replace_head, types_for
from nnlite.transfer.logistic import fit
from nnlite.transfer.metadata import choose_preprocessing


def spread(samples: tuple, count: int) -> list:  # type: ignore[type-arg]
    places = np.linspace(0, len(samples) - 1, min(count, len(samples))).astype(int)
    return [samples[i] for i in places]


def write_subset(data: Dataset, train: list, held: list, folder: Path) -> Path:  # type: ignore[type-arg]
    """The chosen pictures as a CSV, which both sides read."""
    from nnlite.data import save_picture

    rows = [("path", "label", "split")]
    for part, samples in (("train", train), ("val", held)):
        for number, sample in enumerate(samples):
            name = f"{part}{number:05}.png"
            save_picture(folder / name, sample.read())
            rows.append((name, data.classes[sample.label], part))
    with (folder / "set.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder / "set.csv"


def logistic_regression(x: np.ndarray, y: np.ndarray, held: np.ndarray, known: np.ndarray, c: float) -> float:
    """scikit-learn's, with the regularisation that ours chose by cross-validation.

    Its usual tolerance of 1e-4 stops far from the solution where the regularisation is weak. For two
    classes it has one vector w where ours has w/2 and -w/2, whose penalty is half as large: the same
    problem at twice C.
    """
    from sklearn.linear_model import LogisticRegression

    scale = np.sqrt(((x - x.mean(0)) ** 2).mean())
    c = c if len(np.unique(y)) > 2 else 2 * c
    model = LogisticRegression(C=c, max_iter=20000, tol=1e-6).fit((x - x.mean(0)) / scale, y)
    return float(model.score((held - x.mean(0)) / scale, known))


def start_of(model: str, classes: int, pictures: int, seed: int) -> torch_results.Start:
    """The first weights of nnlite's head with ``seed``, and its order of the pictures."""
    random.manual_seed(seed)
    module, head = replace_head(onnx.load(model), classes)
    weight = np.moveaxis(module.leaf(head.weight).numpy(), head.out_axis, 0)
    return weight, lambda *at: np.random.Generator(np.random.Philox([seed, *at])).permutation(pictures)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("data")
    for name, default in (("size", 128), ("train", 400), ("held", 200), ("seeds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--same-start", action="store_true")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        data = open_dataset(told.data)
        train, held = spread(data.train, told.train), spread(data.validation, told.held)
        subset = write_subset(data, train, held, folder)
        data, module = open_dataset(subset), onnx.load(told.model)
        preprocessing = choose_preprocessing(module, told.model, size=told.size).preprocessing
        head = find_head(module)
        cut = choose_cut(module, types_for(module, preprocessing.size), head, "1")
        transform = preprocessing.evaluation()
        prepared = [
            (np.ascontiguousarray([transform(s.read()) for s in part]), np.array([s.label for s in part]))
            for part in (data.train, data.validation)
        ]
        plan = module.part(module.graph.inputs, [head.features]).compile()
        features = []
        for images, _ in prepared:
            batches = [np.moveaxis(np.ascontiguousarray(np.moveaxis(images[i : i + 8], 1, -1)), -1, 1)
                       for i in range(0, len(images), 8)]  # fmt: skip
            features.append(np.concatenate([plan(b).copy() for b in batches]).reshape(len(images), -1))
        (_, y), (_, known) = prepared
        fx, fh = (one.astype(np.float64) for one in features)
        own = [
            finetune(FinetuneConfig(
                told.model, str(subset), str(folder / f"{seed}.onnx"), run_dir=str(folder / f"run{seed}"),
                size=told.size, seed=seed, views=1, augment="none", baselines=False,
                report=False,
            )).metrics["accuracy"]
            for seed in range(told.seeds)
        ]  # fmt: skip
        starts = [
            start_of(told.model, len(data.classes), len(y), seed) if told.same_start else None
            for seed in range(told.seeds)
        ]
        peer = torch_results.accuracies(told.model, cut.name, *prepared, starts)
        regression = fit(fx, y, len(data.classes))
        probe = float((regression.logits(fh).argmax(1) == known).mean())
        sklearn = logistic_regression(fx, y, fh, known, regression.c)
        majority = float((known == np.bincount(y).argmax()).mean())

        def told_spread(values: list[float]) -> str:
            return f"{100 * np.mean(values):.1f} ({100 * min(values):.1f}-{100 * max(values):.1f})"

        print(
            f"| {Path(told.model).stem} | {Path(told.data).name} | "
            f"{len(y)}+{len(known)}, {len(data.classes)} | "
            f"{100 * majority:.1f} | {100 * probe:.1f} | {100 * sklearn:.1f} | {told_spread(own)} | "
            f"{told_spread(peer)} |"
        )


if __name__ == "__main__":
    main()
