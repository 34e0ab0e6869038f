"""Does a network see what it was trained on? A look at its activations under several normalisations.

Where the network still has its batch normalisation, the channels that enter the first one should vary as its
running statistics say: r = median over channels of ln(variance / running variance) is then near 0. A wrong
scale of the input shows directly, because that part of the network is linear.

Where batch normalisation is folded away, the network's own classes tell: what a picture shows does not
change in a mirror, and a network that is shown what it knows says so. With p and q the probabilities for a
picture and its mirror image, the Jensen-Shannon divergence of p and q, averaged over pictures, is smallest
under the right normalisation. Measured on drawings and on photographs, for efficientnet_lite0: 0.018 and
0.014 under its own, 0.030 and 0.024 under ImageNet's. Confidence says less: it is higher under ImageNet's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from nnlite.data import FAMILIES, Dataset, Preprocessing
from nnlite.errors import DataError
from nnlite.graph import GraphModule
from nnlite.layout import Array
from nnlite.transfer.inference import softmax

PICTURES = 24
"""Looked at; half as many would do for a clear case."""

MOST_LOG_RATIO = 1.1
"""|r| up to which variances may differ from the running ones: three times, as drawings and small sizes do."""

MUCH_LESS = 0.75
"""Part of the chosen normalisation's divergence that another's must stay below to be pointed out."""

AS_GOOD = 1.15
"""Times the smallest divergence that cannot be told from it."""

FEW = 16
"""Pictures that go through a whole network, twice for every normalisation."""

FEWEST_CLASSES = 10
BATCH = 8


def some_pictures(data: Dataset, at_least: tuple[int, int] | None) -> list[Array]:
    """Up to :data:`PICTURES` training pictures, evenly spread; those that cannot be read are left out."""
    count = min(PICTURES, len(data.train))
    pictures = []
    for place in np.linspace(0, len(data.train) - 1, count).astype(int):
        try:
            pictures.append(data.train[place].read(at_least=at_least))
        except DataError:
            continue  # reported where it is decoded
    return pictures


def doubt(module: GraphModule, chosen: Preprocessing, pictures: Sequence[Array]) -> str | None:
    """Why ``chosen`` is probably wrong for the untouched network ``module``, in one line, or None.

    Says nothing of networks that it cannot judge: without batch normalisation and without classes.
    """
    if not pictures or len(chosen.mean) != 3:
        return None
    others = {
        name: replace(chosen, mean=mean, std=std, scale=scale, channels=channels)
        for name, (mean, std, scale, channels) in FAMILIES.items()
    }
    distinct = {how: name for name, how in reversed(others.items()) if how != chosen}
    others = {name: how for how, name in reversed(distinct.items())}
    return _by_statistics(module, chosen, others, pictures) or _by_mirror(module, chosen, others, pictures)


def _outputs(function: Callable[[Array], Array], how: Preprocessing, pictures: Sequence[Array]) -> Array:
    transform = how.evaluation()
    parts = []
    for begin in range(0, len(pictures), BATCH):
        batch = np.stack([np.moveaxis(transform(one), 0, -1) for one in pictures[begin : begin + BATCH]])
        parts.append(function(np.moveaxis(batch, -1, 1)).copy())
    return np.concatenate(parts)


def _by_statistics(
    module: GraphModule, chosen: Preprocessing, others: dict[str, Preprocessing], pictures: Sequence[Array]
) -> str | None:
    norm = next((node for node in module.graph.nodes if node.op.name == "batch_norm"), None)
    variance = None if norm is None else norm.inputs[4]
    if norm is None or norm.inputs[0] is None or variance is None or variance not in module.graph.arrays:
        return None
    stem = module.part(module.graph.inputs, [norm.inputs[0]]).compile()
    running = module.leaf(variance).numpy()

    def log_ratio(how: Preprocessing) -> float:
        return float(np.median(np.log(_outputs(stem, how, pictures).var((0, 2, 3)) / running)))

    with np.errstate(divide="ignore"):
        own = log_ratio(chosen)
        if abs(own) <= MOST_LOG_RATIO:
            return None
        ratios = {name: log_ratio(how) for name, how in others.items()}
    best = min(ratios, key=lambda name: abs(ratios[name]))
    if abs(ratios[best]) > abs(own) / 2:
        return None
    times = f"{np.exp(own):.2g}"
    return (
        "the normalisation looks wrong: what enters the first batch normalisation varies "
        f"{times} times as much as in training, with {best} {np.exp(ratios[best]):.2g} times; try --preprocessing {best}"
    )


def _by_mirror(
    module: GraphModule, chosen: Preprocessing, others: dict[str, Preprocessing], pictures: Sequence[Array]
) -> str | None:
    if any(node.op.name == "batch_norm" for node in module.graph.nodes) or len(module.graph.outputs) != 1:
        return None
    network = module.compile()
    pictures = pictures[:FEW]
    mirrored = [picture[:, ::-1] for picture in pictures]

    def divergence(how: Preprocessing) -> float | None:
        logits, again = (_outputs(network, how, some) for some in (pictures, mirrored))
        if logits.ndim != 2 or logits.shape[1] < FEWEST_CLASSES:
            return None
        return jensen_shannon(softmax(logits), softmax(again))

    own = divergence(chosen)
    if own is None:
        return None
    found = {name: value for name, how in others.items() if (value := divergence(how)) is not None}
    least = min(found.values())
    if least > MUCH_LESS * own:
        return None
    alike = " or ".join(name for name, value in found.items() if value <= AS_GOOD * least)
    return (
        "the normalisation looks wrong: the network's classes for mirrored pictures differ by "
        f"{own:.3f} nats, with {alike} by {least:.3f}; try --preprocessing {alike}"
    )


def jensen_shannon(p: Array, q: Array) -> float:
    """Mean over rows of (KL(p|m) + KL(q|m)) / 2 with m = (p + q) / 2, in nats; 0 alike, ln 2 disjoint."""
    middle = (p + q) / 2

    def kl(a: Array) -> Array:
        ratio = np.divide(a, middle, out=np.ones_like(a), where=a > 0)
        total: Array = (a * np.log(ratio)).sum(1)
        return total

    return float((kl(p) + kl(q)).mean() / 2)
