"""Checkpoints of a run: written whole or not at all, and enough to go on bit for bit.

    number   how many phases are done
    phase    where the current one stands: weights, optimiser, schedule, average, best, batch of the epoch
    network  tensors of the network that earlier phases have changed
    random   the generator's counters; history, skipped pictures, seconds so far

Features of the frozen part are not in it: they are computed, or found, again.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nnlite import random, saving
from nnlite.device import CPU
from nnlite.errors import ModelError
from nnlite.node import Value
from nnlite.transfer.interrupt import Interrupt
from nnlite.transfer.job import Job
from nnlite.transfer.training import EpochRecord, Phase

NAME = "checkpoint.safetensors"
VERSION = 1


def read(folder: Path) -> dict[str, Any] | None:
    """The last checkpoint of a run, None where there is none yet; ModelError when it is damaged."""
    path = folder / NAME
    if not path.exists():
        return None
    state = saving.load(path)
    if not isinstance(state, dict) or state.get("version") != VERSION:
        raise ModelError(f"{path}: is no checkpoint of this version of nnlite; start the run anew")
    return state


class Keeper:
    """Writes the checkpoints of one run, and puts back the one that it goes on from."""

    def __init__(self, job: Job, state: dict[str, Any] | None, interrupt: Interrupt) -> None:
        self.job = job
        self.path = job.run.path / NAME
        self.done = 0
        """Phases that are finished."""
        self._interrupt = interrupt
        self._within: dict[str, Any] | None = None
        self._versions = {v: job.module.leaf(v).version for v in job.module.graph.arrays}
        self.anchors: dict[Any, Any] = {}
        """Where pretrained weights began, if they are pulled back there."""
        if job.config.l2_sp:
            own = (job.head.weight, job.head.bias)
            pretrained = [job.module.leaf(v) for v in job.module.graph.arrays if v not in own]
            self.anchors = {leaf: leaf.to(CPU).numpy().copy(order="K") for leaf in pretrained}
        self._began, self._written = job.began, time.perf_counter()
        if state is not None:
            self._restore(state)

    @property
    def seconds(self) -> float:
        """How long the run has been at work, interruptions left out."""
        return time.perf_counter() - self._began

    def _restore(self, state: dict[str, Any]) -> None:
        job = self.job
        self.done, self._within = state["number"], state["phase"]
        for value in job.module.graph.arrays:
            if value.name in state["network"]:
                job.module.leaf(value).assign(state["network"][value.name])
        job.history[:] = [EpochRecord(**record) for record in state["history"]]
        job.skipped.update(state["skipped"])
        self._began -= state["seconds"]
        random.set_state(state["random"])

    def train(self, phase: Phase) -> None:
        """Run a phase, or what is left of it, with a checkpoint after every epoch and every few minutes."""
        if self._within is not None:
            phase.load_state_dict(self._within)
            self._within = None
        phase.run(self.job.record, lambda: self._after_step(phase), lambda: self._after_epoch(phase))

    def finish_phase(self) -> None:
        """The phase is done, and what it left in the network counts."""
        self.done += 1
        self._write(None)

    def _after_step(self, phase: Phase) -> None:
        minutes = self.job.config.checkpoint_minutes
        if self._interrupt.asked or time.perf_counter() - self._written > 60 * minutes:
            self._after_epoch(phase)

    def _after_epoch(self, phase: Phase) -> None:
        self._write(phase)
        if self._interrupt.asked:
            self._interrupt.stop()

    def _write(self, phase: Phase | None) -> None:
        job = self.job
        job.provenance.check()  # what was learned from changed pictures is not kept
        saving.save(
            self.path,
            {
                "version": VERSION,
                "number": self.done,
                "phase": None if phase is None else phase.state_dict(),
                "cache": job.cache_mode,
                "precision": job.frozen.decided,
                "network": self._network(phase),
                "random": random.get_state(),
                "history": [asdict(record) for record in job.history],
                "skipped": dict(job.skipped),
                "seconds": self.seconds,
            },
        )
        self._written = time.perf_counter()

    def _network(self, phase: Phase | None) -> dict[str, Any]:
        """What differs from the network as it was read, and is not in the phase's own state."""
        own = set() if phase is None else {id(p) for p in phase.module.parameters() if p.requires_grad}

        def counts(value: Value) -> bool:
            leaf = self.job.module.leaf(value)
            return leaf.version != self._versions[value] and id(leaf) not in own

        leaf = self.job.module.leaf
        return {v.name: leaf(v).to(CPU).numpy() for v in self.job.module.graph.arrays if counts(v)}
