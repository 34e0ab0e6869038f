"""Which kinds of bench there are, and beside whom."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence

from nnlite import kernels, threads
from nnlite.bench.layers import measure_kernels, measure_threads
from nnlite.bench.machine import Machine
from nnlite.bench.networks import measure_inference, measure_training
from nnlite.bench.row import Row
from nnlite.errors import ConfigError

_MEASURES = {
    "kernels": measure_kernels,
    "training": measure_training,
    "inference": measure_inference,
    "threads": measure_threads,
}
KINDS = (*_MEASURES, "memory")
PEERS = ("torch", "onnxruntime", "openvino")


def available_peers(wanted: Sequence[str], say: Callable[[str], None]) -> list[str]:
    """Those of ``wanted`` that are installed; the others are named."""
    found = []
    for peer in wanted:
        if peer not in PEERS:
            raise ConfigError(f"--against {peer}: must be one or more of {', '.join(PEERS)}")
        if importlib.util.find_spec(peer) is None:
            say(f"{peer} is not installed, so there is no comparison with it")
        else:
            found.append(peer)
    return found


def bench(
    kind: str,
    machine: Machine,
    *,
    against: Sequence[str] = (),
    backends: Sequence[str] = ("auto",),
    repeats: int = 7,
    match: str = "",
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[Row]:
    """Measure the cases of one kind whose name or group contains ``match``, row by row.

    Raises ConfigError for an unknown kind, BackendError for a backend that is not there.
    """
    if kind not in _MEASURES:
        raise ConfigError(f"bench {kind}: must be one of {', '.join(_MEASURES)}")
    peers = available_peers(against, say)
    for backend in backends:
        with kernels.use_backend(backend):
            pass  # a backend that is missing is found out before anything is measured
    if "torch" in peers:
        from nnlite.bench import torch_peer

        torch_peer.use_threads(threads.get_num_threads())
    yield from _MEASURES[kind](machine, peers, backends, repeats, match)
