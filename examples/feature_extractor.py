"""Transfer learning by hand: pretrain on one set, freeze, put a new head on, tune on another set.

    python examples/feature_extractor.py

Pretrained on clothes (Fashion-MNIST) and tuned on 50 handwritten digits; where Fashion-MNIST is not
installed, pretrained on the digits 0 to 4 and tuned on 5 to 9. Compared with the same network trained
from scratch on the same pictures with the same number of steps.
"""

from __future__ import annotations

import numpy as np
from pictures import FASHION, Set, digits, fashion
from small_cnn import SmallCNN, accuracy, train

import nnlite as nl
from nnlite import nn

TUNING_PICTURES = 50
TUNING_EPOCHS = 30


def source_and_target() -> tuple[Set, Set, Set, str]:
    """What to pretrain on, what to tune on, what to test on."""
    tuning, held_out = digits(True, 1397), digits(False, 400)
    if FASHION.exists():
        return fashion(True, 10_000), tuning, held_out, "pretrained on clothes, tuned on digits"

    def part(pictures: Set, low: int, high: int) -> Set:
        chosen = (pictures[1] >= low) & (pictures[1] <= high)
        return pictures[0][chosen], pictures[1][chosen] - low

    return part(tuning, 0, 4), part(tuning, 5, 9), part(held_out, 5, 9), "pretrained on 0-4, tuned on 5-9"


def main() -> None:
    nl.manual_seed(0)
    source, (pictures, labels), held_out, what = source_and_target()
    pictures, labels = pictures[:TUNING_PICTURES], labels[:TUNING_PICTURES]
    print(what)
    model = SmallCNN()
    train(model, *source, epochs=5)

    # Freeze what was learned, and prove it: not one of these numbers may change.
    model.freeze()
    before = {name: array.copy() for name, array in model.state_dict().items()}
    # The new head, the only part that is trained: both linear layers, for digits are not clothes.
    model.fc1, model.fc2 = nn.Linear(64 * 8 * 8, 128), nn.Linear(128, 10)
    sizes = [(p.size, p.requires_grad) for p in model.parameters()]
    trained, total = sum(size for size, free in sizes if free), sum(size for size, _ in sizes)
    print(f"tuning the head: {trained} of {total} parameters, {len(labels)} pictures")
    train(model, pictures, labels, TUNING_EPOCHS, batch=16)
    after = model.state_dict()
    assert all(np.array_equal(before[name], after[name]) for name in before if name.startswith("conv"))

    scratch = SmallCNN()
    train(scratch, pictures, labels, TUNING_EPOCHS, batch=16)
    print(f"pretrained and frozen, new head: {accuracy(model, *held_out):.1%}")
    print(f"from scratch, the same steps:    {accuracy(scratch, *held_out):.1%}")


if __name__ == "__main__":
    main()
