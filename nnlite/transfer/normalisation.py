"""Does a network see what it was trained on? A look at its activations under several normalisations.

Where the network still has its batch normalisation, the channels that enter the first one should vary as its
running statistics say: r = median over channels of ln(variance / running variance) is then near 0. A wrong
scale of the input shows directly, because that part of the network is linear.

Where batch normalisation is folded away, an input that is scaled too much drives the first bounded activation
(ReLU6) against its bound: for efficientnet_lite0 13 to 16% of the values under ImageNet's normalisation, 3 to
4% under its own. Last, the network's own classes tell, if less surely: what a picture shows does not change
in a mirror. With p and q the probabilities for a picture and its mirror image, the Jensen-Shannon divergence
of p and q is smallest under the right normalisation (0.016 against 0.029 on photographs for the same network,
a weaker sign on drawings). Confidence says nothing: it is higher under the wrong one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from nnlite.data import FAMILIES, Dataset, Preprocessing
from nnlite.device import CPU
from nnlite.errors import DataError
from nnlite.graph import GraphModule
from nnlite.layout import Array
from nnlite.transfer.inference import softmax

PICTURES = 40
"""Looked at: by a stem in less than a second, by a whole network, twice for each normalisation, in some."""

MOST_LOG_RATIO = 0.9
"""|r| up to which variances may differ from the running ones: 2.5 times, as drawings and small sizes do."""

MOST_AT_BOUND = 0.1
"""Part of the first activations that may lie at their upper bound."""

MUCH_LESS = 0.75
"""Part of the chosen normalisation's divergence that another's must stay below (geometric mean)."""

ON_AVERAGE = 0.85
"""And the part for the plain mean: a network that is sure of one class whatever it sees hardly differs."""

SURELY = 2.5
"""And so many standard errors; right ones had up to 1.3, wrong ones 1.8 to 4.6."""

AS_GOOD = 1.15
"""Times the smallest divergence that cannot be told from it."""

FEWEST_CLASSES = 10
BATCH = 1


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
    known = module, chosen, others, pictures
    return _by_statistics(*known) or _by_saturation(*known) or _by_mirror(*known)


def _batches(
    function: Callable[[Array], Array], how: Preprocessing, pictures: Sequence[Array]
) -> Iterator[Array]:
    transform = how.evaluation()
    for begin in range(0, len(pictures), BATCH):
        batch = np.stack([np.moveaxis(transform(one), 0, -1) for one in pictures[begin : begin + BATCH]])
        yield function(np.moveaxis(batch, -1, 1))


def _outputs(function: Callable[[Array], Array], how: Preprocessing, pictures: Sequence[Array]) -> Array:
    return np.concatenate([batch.copy() for batch in _batches(function, how, pictures)])


def _variance(function: Callable[[Array], Array], how: Preprocessing, pictures: Sequence[Array]) -> Array:
    """Per channel, over all pictures, whose maps are not kept: of a stem they are large."""
    count, total, squares = 0, np.zeros(()), np.zeros(())
    for y in _batches(function, how, pictures):
        rows = np.moveaxis(y, 1, -1).reshape(-1, y.shape[1])
        count += len(rows)
        total = total + rows.sum(0, np.float64)
        squares = squares + np.square(rows).sum(0, np.float64)
    return np.maximum(squares / count - (total / count) ** 2, 0)  # of what is constant a rounding may be left


def _by_statistics(
    module: GraphModule, chosen: Preprocessing, others: dict[str, Preprocessing], pictures: Sequence[Array]
) -> str | None:
    norm = next((node for node in module.graph.nodes if node.op.name == "batch_norm"), None)
    variance = None if norm is None else norm.inputs[4]
    if norm is None or norm.inputs[0] is None or variance is None or variance not in module.graph.arrays:
        return None
    stem = module.part(module.graph.inputs, [norm.inputs[0]]).compile()
    running = module.leaf(variance).to(CPU).numpy()

    def log_ratio(how: Preprocessing) -> float:
        return float(np.median(np.log(_variance(stem, how, pictures) / running)))

    with np.errstate(divide="ignore"):
        own = log_ratio(chosen)
        if abs(own) <= MOST_LOG_RATIO:
            return None
        ratios = {name: log_ratio(how) for name, how in others.items()}
    best = min(ratios, key=lambda name: abs(ratios[name]))
    if abs(ratios[best]) > abs(own) / 2:
        return None
    return (
        "the normalisation looks wrong: what enters the first batch normalisation varies "
        f"{np.exp(own):.2g} times as much as in training, with {best} {np.exp(ratios[best]):.2g} times; "
        f"try --preprocessing {best}"
    )


def _by_saturation(
    module: GraphModule, chosen: Preprocessing, others: dict[str, Preprocessing], pictures: Sequence[Array]
) -> str | None:
    if any(node.op.name == "batch_norm" for node in module.graph.nodes):
        return None
    clamp = next((node for node in module.graph.nodes if node.op.name == "clamp"), None)
    bound = None if clamp is None else clamp.params.get("maximum")
    if clamp is None or not isinstance(bound, (int, float)) or not np.isfinite(bound):
        return None
    stem = module.part(module.graph.inputs, [clamp.outputs[0]]).compile()

    def share(how: Preprocessing) -> float:
        return float((_outputs(stem, how, pictures) >= bound).mean())

    own = share(chosen)
    if own < MOST_AT_BOUND:
        return None
    shares = {name: share(how) for name, how in others.items()}
    better = {name: value for name, value in shares.items() if value <= own / 2}
    if not better:
        return None
    alike = " or ".join(sorted(better, key=lambda name: -better[name]))
    return (
        f"the normalisation looks wrong: {own:.0%} of the first activations are at their upper bound, with "
        f"{alike} at most {max(better.values()):.0%}; try --preprocessing {alike}"
    )


def _by_mirror(
    module: GraphModule, chosen: Preprocessing, others: dict[str, Preprocessing], pictures: Sequence[Array]
) -> str | None:
    if any(node.op.name == "batch_norm" for node in module.graph.nodes) or len(module.graph.outputs) != 1:
        return None
    network = module.compile()
    mirrored = [picture[:, ::-1] for picture in pictures]

    def divergence(how: Preprocessing) -> Array | None:
        logits, again = (_outputs(network, how, some) for some in (pictures, mirrored))
        if logits.ndim != 2 or logits.shape[1] < FEWEST_CLASSES:
            return None
        return jensen_shannon(softmax(logits), softmax(again)) + 1e-6

    own = divergence(chosen)
    if own is None:
        return None
    found = {name: value for name, how in others.items() if (value := divergence(how)) is not None}
    better = {name: float(value.mean()) for name, value in found.items() if _surely_less(value, own)}
    if not better:
        return None
    least = min(better.values())
    alike = " or ".join(name for name, value in better.items() if value <= AS_GOOD * least)
    return (
        "the normalisation looks wrong: the network's classes for mirrored pictures differ by "
        f"{own.mean():.3f} nats, with {alike} by {least:.3f}; try --preprocessing {alike}"
    )


def _surely_less(value: Array, own: Array) -> bool:
    """Whether ``value`` [N] is much less than ``own`` [N]: on average, and picture by picture.

    By a paired t statistic of logarithms, which a few pictures with large divergences cannot decide.
    """
    gain = np.log(own / value)
    error = float(gain.std(ddof=1)) / len(gain) ** 0.5 if len(gain) > 1 else np.inf
    mean = float(gain.mean())
    return mean > -np.log(MUCH_LESS) and mean > SURELY * error and value.mean() < ON_AVERAGE * own.mean()


def jensen_shannon(p: Array, q: Array) -> Array:
    """(KL(p|m) + KL(q|m)) / 2 of each row, with m = (p + q) / 2, in nats; 0 alike, ln 2 disjoint."""
    middle = (p + q) / 2

    def kl(a: Array) -> Array:
        ratio = np.divide(a, middle, out=np.ones_like(a), where=a > 0)
        total: Array = (a * np.log(ratio)).sum(1)
        return total

    divergence: Array = (kl(p) + kl(q)) / 2
    return divergence
