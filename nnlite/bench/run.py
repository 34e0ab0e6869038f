"""Running the cases and putting figures beside each other."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nnlite import autograd, kernels, nn, random, threads, zoo
from nnlite import functional as F
from nnlite.bench.cases import FLOAT32, INFERENCE_CASES, KERNEL_CASES, TRAINING_CASES, KernelCase
from nnlite.bench.machine import Machine
from nnlite.bench.timing import alternate
from nnlite.errors import ConfigError
from nnlite.graph import GraphModule, fold_batch_norm, trace
from nnlite.kernels import SPECS
from nnlite.layout import Array, channels_last
from nnlite.optim import SGD
from nnlite.tensors import Tensor

KINDS = ("kernels", "training", "inference")
PEERS = ("torch", "onnxruntime")


@dataclass(frozen=True)
class Row:
    """One case: seconds by side, rates of the first backend, ratios of the peers' times to it."""

    kind: str
    group: str
    name: str
    what: str
    variant: str
    seconds: dict[str, float]
    gflops: float
    gbytes: float | None
    roofline: float | None
    """Part of what the machine's ceilings allow; above 1 where the algorithm needs fewer operations."""
    ratios: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """The row as plain JSON types."""
        return asdict(self)


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
    if kind not in KINDS:
        raise ConfigError(f"bench {kind}: must be one of {', '.join(KINDS)}")
    peers = available_peers(against, say)
    for backend in backends:
        with kernels.use_backend(backend):
            pass  # a backend that is missing is found out before anything is measured
    if "torch" in peers:
        from nnlite.bench import torch_peer

        torch_peer.use_threads(threads.get_num_threads())
    measure = {"kernels": _kernels, "training": _training, "inference": _inference}[kind]
    yield from measure(machine, peers, backends, repeats, match)


def _best_of_layouts(seconds: dict[str, float]) -> dict[str, float]:
    """PyTorch's two layouts as one side, the better of them."""
    layouts = [t for name, t in seconds.items() if name.startswith("torch ")]
    rest = {name: t for name, t in seconds.items() if not name.startswith("torch ")}
    return rest | ({"torch": min(layouts)} if layouts else {})


def _row(
    kind: str, group: str, name: str, what: str, variant: str, seconds: dict[str, float], flops: float,
    size: float | None, machine: Machine, own: str,
) -> Row:  # fmt: skip
    seconds = _best_of_layouts(seconds)
    rate = flops / seconds[own]
    ceiling = machine.roofline(flops, size) if size else machine.flops
    ratios = {side: t / seconds[own] for side, t in seconds.items() if side != own}
    return Row(
        kind, group, name, what, variant, seconds, rate / 1e9,
        size / seconds[own] / 1e9 if size else None, rate / ceiling if ceiling else None, ratios,
    )  # fmt: skip


# -------------------------------------------------------------------------------------- kernels


def _kernels(
    machine: Machine, peers: Iterable[str], backends: Sequence[str], repeats: int, match: str
) -> Iterator[Row]:
    rng = np.random.default_rng(0)
    for case in KERNEL_CASES:
        if match not in f"{case.group} {case.name} {case.kernel}":
            continue
        inputs = SPECS[case.kernel].random_inputs(case.geometry, FLOAT32, rng)
        own = {name: channels_last(array) for name, array in inputs.items() if name != "bias"}
        sides: dict[str, Callable[[], object]] = {}
        for backend in backends:
            sides[backend] = _own_call(case, own, backend)
        if "torch" in peers:
            from nnlite.bench import torch_peer

            calls = torch_peer.kernel_calls(case, {n: a for n, a in inputs.items() if n != "bias"})
            sides |= {f"torch {layout}": call for layout, call in calls.items()}
        with kernels.use_backend(backends[0]):
            variant = str(kernels.select(case.kernel, case.geometry).variant)
        seconds = alternate(sides, repeats)
        what = case.kernel
        yield _row(
            "kernels",
            case.group,
            case.name,
            what,
            variant,
            seconds,
            case.flops,
            case.bytes,
            machine,
            backends[0],
        )


def _own_call(case: KernelCase, inputs: dict[str, Array], backend: str) -> Callable[[], object]:
    """The kernel with outputs allocated as the ops allocate them."""
    from nnlite import memory

    spec = SPECS[case.kernel]
    types = spec.types(case.geometry, FLOAT32)
    operands = [inputs.get(name) for name in spec.inputs]

    def call() -> object:
        with kernels.use_backend(backend):
            outputs = [memory.empty(*types[name]) for name in spec.outputs]
            kernels.launch(case.kernel, case.geometry, *operands, *outputs)
            return outputs

    return call


# ------------------------------------------------------------------------------------- networks


def _network(name: str, classes: int = 1000) -> nn.Module:
    random.manual_seed(0)
    model: nn.Module = getattr(zoo, name)(num_classes=classes)
    return model


def _settled(model: nn.Module) -> nn.Module:
    """``model`` in evaluation mode, its running statistics measured on noise.

    With the initial ones activations of a deep network shrink to denormals, which cost engines that do
    not flush them ten times the time and say nothing about a trained network.
    """
    model.train()
    with autograd.no_grad():
        for _ in range(30):
            model(Tensor(_pictures(8, 96)))
    return model.eval()


def _macs(model: nn.Module, x: Array) -> int:
    from nnlite.graph import infer_types, node_macs

    graph, _ = trace(model, [Tensor(x[:1])])
    types = infer_types(graph, {value: value.type for value in graph.inputs if value.type is not None})
    return sum(node_macs(node, types) for node in graph.nodes) * len(x)


def _pictures(batch: int, side: int) -> Array:
    rng = np.random.default_rng(0)
    return channels_last(rng.standard_normal((batch, 3, side, side)).astype(np.float32))


def _training(
    machine: Machine, peers: Iterable[str], backends: Sequence[str], repeats: int, match: str
) -> Iterator[Row]:
    """Forward, loss, backward, SGD with momentum."""
    for name, batch, side in TRAINING_CASES:
        if match not in name:
            continue
        x, labels = _pictures(batch, side), np.arange(batch)
        model = _network(name)
        sides = {backend: _own_step(model, x, labels, backend) for backend in backends}
        if "torch" in peers:
            sides |= _torch_steps(model, x, labels)
        seconds = alternate(sides, repeats)
        flops = 3 * 2 * _macs(model, x)  # backward costs two forwards
        case = f"{name} b{batch}@{side}"
        yield _row("training", name, case, "step", backends[0], seconds, flops, None, machine, backends[0])


def _own_step(model: nn.Module, x: Array, labels: Array, backend: str) -> Callable[[], object]:
    optimizer = SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def step() -> object:
        with kernels.use_backend(backend):
            model.train()
            loss = F.cross_entropy(model(Tensor(x)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

    return step


def _torch_steps(model: nn.Module, x: Array, labels: Array) -> dict[str, Callable[[], object]]:
    import torch

    from nnlite.bench.torch_peer import LAYOUTS, TorchGraph

    graph, leaves = trace(model, [Tensor(x[:1])])
    arrays = {value: leaves[value].numpy() for value in graph.arrays}
    target = torch.from_numpy(labels)
    steps: dict[str, Callable[[], object]] = {}
    for layout in LAYOUTS:
        peer = TorchGraph(graph, arrays, layout, training=True)
        optimizer = torch.optim.SGD(peer.parameters(), lr=1e-3, momentum=0.9)
        images = torch.from_numpy(np.ascontiguousarray(x)).contiguous(memory_format=peer.layout)

        def step(peer: TorchGraph = peer, optimizer: Any = optimizer, images: Any = images) -> object:
            loss = torch.nn.functional.cross_entropy(peer(images), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        steps[f"torch {layout}"] = step
    return steps


def _inference(
    machine: Machine, peers: Iterable[str], backends: Sequence[str], repeats: int, match: str
) -> Iterator[Row]:
    for name, batch, side in INFERENCE_CASES:
        if match not in name:
            continue
        x = _pictures(batch, side)
        model = _settled(_network(name))
        graph, _ = trace(model, [Tensor(x[:1])])
        sides = {backend: _own_inference(graph, x, backend) for backend in backends}
        if "torch" in peers:
            sides |= _torch_inference(graph, x)
        if "onnxruntime" in peers:
            sides["onnxruntime"] = _onnxruntime_inference(model, x)
        seconds = alternate(sides, repeats)
        flops = 2 * _macs(model, x)
        case = f"{name} b{batch}@{side}"
        yield _row(
            "inference", name, case, "forward", backends[0], seconds, flops, None, machine, backends[0]
        )


def _own_inference(graph: Any, x: Array, backend: str) -> Callable[[], object]:
    plan = GraphModule(graph).freeze().eval().compile()

    def call() -> object:
        with kernels.use_backend(backend):
            return plan(x)

    return call


def _torch_inference(graph: Any, x: Array) -> dict[str, Callable[[], object]]:
    import torch

    from nnlite.bench.torch_peer import LAYOUTS, TorchGraph

    folded = fold_batch_norm(graph)
    calls: dict[str, Callable[[], object]] = {}
    for layout in LAYOUTS:
        peer = TorchGraph(folded, folded.arrays, layout, training=False)
        images = torch.from_numpy(np.ascontiguousarray(x)).contiguous(memory_format=peer.layout)

        def call(peer: TorchGraph = peer, images: Any = images) -> object:
            with torch.inference_mode():
                return peer(images)

        calls[f"torch {layout}"] = call
    return calls


def _onnxruntime_inference(model: nn.Module, x: Array) -> Callable[[], object]:
    import onnxruntime

    from nnlite.onnx import to_model

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads.get_num_threads()
    data = to_model(model, inputs=[x[:1]]).SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    contiguous = np.ascontiguousarray(x)
    return lambda: session.run(None, {"input": contiguous})
