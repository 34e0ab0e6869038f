"""Kernels on the layers of well-known networks: beside peers, and on one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from nnlite import kernels, memory, threads
from nnlite.bench.cases import FLOAT32, KERNEL_CASES, KernelCase
from nnlite.bench.machine import Machine
from nnlite.bench.row import Row, make_row
from nnlite.bench.timing import alternate
from nnlite.errors import ConfigError
from nnlite.kernels import SPECS
from nnlite.layout import Array


def _chosen(match: str) -> Iterator[KernelCase]:
    return (case for case in KERNEL_CASES if match in f"{case.group} {case.name} {case.kernel}")


def random_inputs(case: KernelCase) -> dict[str, Array]:
    """What the case is measured on."""
    spec = SPECS[case.kernel]
    inputs = spec.random_inputs(case.geometry, FLOAT32, np.random.default_rng(0))
    return {name: array for name, array in inputs.items() if name not in case.absent}


def _in_pool(array: Array) -> Array:
    """As ops hand their results on: aligned and channels-last."""
    own = memory.empty(array.shape, array.dtype)
    own[...] = array
    return own


def measure_kernels(
    machine: Machine, peers: Iterable[str], backends: Sequence[str], repeats: int, match: str
) -> Iterator[Row]:
    """Every kernel case whose name contains ``match``."""
    for case in _chosen(match):
        inputs = random_inputs(case)
        sides = {backend: own_call(case, inputs, backend) for backend in backends}
        if "torch" in peers:
            from nnlite.bench import torch_peer

            calls = torch_peer.kernel_calls(case, inputs)
            sides |= {f"torch {layout}": call for layout, call in calls.items()}
        yield _kernel_row("kernels", case, alternate(sides, repeats), backends[0], machine)


def measure_threads(
    machine: Machine, peers: Iterable[str], backends: Sequence[str], repeats: int, match: str
) -> Iterator[Row]:
    """The forward pass of the 3x3 and 1x1 layers with all threads and with one."""
    count = threads.get_num_threads()
    if count < 2:
        raise ConfigError("bench threads: there is one thread to use; set NNLITE_NUM_THREADS to 2 or more")

    def with_threads(number: int, call: Callable[[], object]) -> Callable[[], object]:
        def run() -> object:
            threads.set_num_threads(number)
            return call()

        return run

    try:
        for case in _chosen(match):
            if case.group not in ("3x3", "1x1") or case.kernel != "conv2d_forward":
                continue
            call = own_call(case, random_inputs(case), backends[0])
            sides = {backends[0]: with_threads(count, call), "1 thread": with_threads(1, call)}
            yield _kernel_row("threads", case, alternate(sides, repeats), backends[0], machine)
    finally:
        threads.set_num_threads(count)


def _kernel_row(kind: str, case: KernelCase, seconds: dict[str, float], own: str, machine: Machine) -> Row:
    with kernels.use_backend(own):
        variant = str(kernels.select(case.kernel, case.geometry).variant)
    return make_row(
        kind, case.group, case.name, case.kernel, variant, seconds, case.flops, case.bytes, machine, own
    )


def own_call(case: KernelCase, inputs: dict[str, Array], backend: str = "auto") -> Callable[[], object]:
    """The kernel on ``inputs``, with outputs allocated as the ops allocate them."""
    spec = SPECS[case.kernel]
    inputs = {name: _in_pool(array) for name, array in inputs.items()}
    types = spec.types(case.geometry, FLOAT32)
    operands = [inputs.get(name) for name in spec.inputs]

    def call() -> object:
        with kernels.use_backend(backend):
            outputs = [None if name in case.absent else memory.empty(*types[name]) for name in spec.outputs]
            kernels.launch(case.kernel, case.geometry, *operands, *outputs)
            return outputs

    return call
