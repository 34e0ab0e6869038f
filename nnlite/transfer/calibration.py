"""Temperature scaling: one number that makes probabilities fit pictures that were set aside.

The logits of a tuned network are divided by T > 0. No answer changes, only how sure it is; the last layer
of the file that is written holds W / T and b / T. Source: Guo et al. 2017, arXiv:1706.04599, 4.2.
"""

from __future__ import annotations

from math import exp, log

import numpy as np

from nnlite.kernels import use_backend
from nnlite.layout import Array
from nnlite.tensors import Tensor
from nnlite.transfer.inference import run_over
from nnlite.transfer.job import Job
from nnlite.transfer.targets import Targets, targets_named

MOST = 16.0
"""T lies between 1/16 and 16."""
STEPS = 60


def temperature(targets: Targets, logits: Array, labels: Array) -> float:
    """The T at which the loss of ``logits`` [N,K] / T is smallest.

    As if one picture more had any other answer: labels are smoothed by 1 / (N + 2) (Platt 1999), without
    which pictures that are all right would ask for T = 0. The loss has one minimum; thirds narrow it down.
    """
    exact, smoothing = logits.astype(np.float64), 1 / (len(labels) + 2)

    def loss(logarithm: float) -> float:
        return float(targets.loss(Tensor(exact / exp(logarithm)), labels, smoothing).item())

    low, high = -log(MOST), log(MOST)
    with use_backend("reference"):  # a few numbers in float64: no kernels need to be compiled for them
        for _ in range(STEPS):
            third = (high - low) / 3
            if loss(low + third) < loss(high - third):
                high -= third
            else:
                low += third
    return exp((low + high) / 2)


def calibrate(job: Job) -> None:
    """Find the temperature of the network as it is now, by the training pictures that are set aside."""
    loader = job.loader(job.aside, False)
    logits, labels, _ = run_over(job.module.compile(), loader, 0, "set aside", job.callbacks.on_batches)
    # Probabilities are of the pictures as they come: without the weights of classes.
    plain = targets_named(job.folder.task, job.folder.classes)
    job.temperature = temperature(plain, logits, labels)
    job.say(f"temperature {job.temperature:.2f}, by {len(labels)} training pictures set aside")
