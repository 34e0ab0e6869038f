"""GraphModule: a graph that is called like any module, with parameters named as in its file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from nnlite import autograd
from nnlite.device import to_host
from nnlite.errors import DTypeError, ModelError, NnliteError, ShapeError
from nnlite.graph.control import max_iterations
from nnlite.graph.ir import Graph
from nnlite.graph.passes.cancel_transpose import cancel_transpose
from nnlite.graph.passes.fuse_epilogue import fuse_epilogue
from nnlite.graph.plan import Plan, Precision
from nnlite.graph.sequences import SEQUENCE, handed_out, held
from nnlite.graph.step import run_node
from nnlite.graph.trainable import parameter_leaves
from nnlite.layout import Array
from nnlite.memory import max_tensor_bytes
from nnlite.nn import Buffer, Module, Parameter
from nnlite.nn.parameter import State
from nnlite.node import Node, Value
from nnlite.tensors import Tensor

Sizes = tuple[int | None, ...]
"""Sizes of an input's axes; None where any will do."""

MALFORMED = (TypeError, ValueError, LookupError, ArithmeticError, MemoryError)
"""What NumPy and Python raise where a file's numbers make no sense or are too large."""


LARGE = 1 << 18
"""Bytes of an array after which a file's pages are given back while its arrays are copied."""


class GraphModule(Module):
    """Runs a graph node by node on Tensors, so that it can be differentiated.

    A node is frozen when nothing that it depends on requires a gradient. Frozen nodes run in
    inference form: no dropout, running statistics that are never updated.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        leaves: Mapping[Value, State] | None = None,
        input_sizes: Sequence[Sizes] | None = None,
        origin: Any = None,
    ) -> None:
        self.graph = graph
        self.origin = origin
        """Where the graph was read from (``nnlite.onnx``), for writing it back."""
        self.from_file = origin is not None
        """Whether the graph comes from a file: then no node may compute more than the budget of bytes."""
        self.input_sizes = None if input_sizes is None else tuple(input_sizes)
        self.trained_inputs: tuple[Value, ...] = ()
        """Inputs that depend on parameters which are trained, where this is a part of a network."""
        if leaves is None:
            trainable = parameter_leaves(graph)
            leaves = {}
            for value, array in graph.arrays.items():
                kind = Parameter if value in trainable else Buffer
                leaves[value] = kind(array, constant=self.from_file)
                if array.nbytes >= LARGE and origin is not None:
                    origin.forget()  # the file's pages: one copy of all weights is enough
        self._leaves = dict(leaves)
        self._last_uses = graph.last_uses()

    def _own_states(self) -> Iterator[tuple[str, State]]:
        return ((value.name, leaf) for value, leaf in self._leaves.items())

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return tuple(value.name for value in self.graph.inputs)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return tuple(value.name for value in self.graph.outputs)

    def leaf(self, value: Value) -> State:
        """The parameter or constant behind a leaf of the graph."""
        return self._leaves[value]

    def forget(self) -> None:
        """Give back the memory of all that is as the file has it: a plan has its own form of it.

        It is read again where it is needed, so that the file must stay as it is.
        """
        for leaf in self._leaves.values():
            leaf.forget()
        if self.origin is not None:
            self.origin.forget()

    # ------------------------------------------------------------------------------ running

    def trainable_nodes(self) -> set[Node]:
        """The nodes that are not frozen."""
        leaves = [value for value, leaf in self._leaves.items() if leaf.requires_grad]
        return self.graph.dependents((*self.trained_inputs, *leaves))

    def forward(self, *inputs: Tensor) -> Any:
        """The output, or a tuple of all outputs, of the inputs in the graph's order."""
        values: dict[Value, Any] = {}
        with autograd.byte_budget(max_tensor_bytes() if self.from_file else None):
            for _ in self._steps(inputs, values):
                pass
        outputs = tuple(values[value] for value in self.graph.outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def _steps(self, inputs: Sequence[Any], values: dict[Value, Any]) -> Iterator[tuple[Node, Sequence[Any]]]:
        """Run node by node; ``values`` holds what is still needed, in the end the outputs."""
        if len(inputs) != len(self.graph.inputs):
            raise ShapeError(f"the model has inputs {list(self.inputs)} but {len(inputs)} were given")
        values.update(self._leaves)
        values.update(zip(self.graph.inputs, inputs, strict=True))
        trainable = self.trainable_nodes() if self.training else set()
        left = [max_iterations()]
        for node, dying in zip(self.graph.nodes, self._last_uses, strict=True):
            try:
                results = run_node(node, values, left, node in trainable)
            except MALFORMED as error:
                if isinstance(error, NnliteError) or not self.from_file:
                    raise
                raise ModelError(f"{node.name}: malformed: {type(error).__name__}: {error}") from error
            yield node, results
            values.update(zip(node.outputs, results, strict=True))
            for value in dying:
                del values[value]

    def first_non_finite(self, *inputs: Tensor) -> str | None:
        """Name of the first parameter or, failing that, layer with a value that is not finite; else None."""
        for name, state in self._own_states():
            if state.dtype.kind == "f" and not np.isfinite(state.array).all():
                return name
        with autograd.no_grad():
            for node, results in self._steps(inputs, {}):
                tensors = [t for t in results if isinstance(t, Tensor) and t.dtype.kind == "f"]
                if not all(np.isfinite(t.array).all() for t in tensors):
                    return node.name
        return None

    def run(self, inputs: Sequence[Any] | Mapping[str, Any]) -> list[Any]:
        """Plain inference on arrays, in order or by name; the outputs as arrays.

        A sequence of tensors is a list of arrays, an optional value that is absent None.

        Raises ModelError for missing or unknown names, ShapeError and DTypeError for arrays that
        differ from what the model declares.
        """
        if isinstance(inputs, Mapping):
            if set(inputs) != set(self.inputs):
                raise ModelError(f"the model has inputs {list(self.inputs)} but {sorted(inputs)} were given")
            inputs = [inputs[name] for name in self.inputs]
        tensors = [held(v, a) for v, a in zip(self.graph.inputs, inputs, strict=False)]
        tensors += [held(None, a) for a in inputs[len(tensors) :]]
        self._check_inputs(tensors)
        training, self.training = self.training, False
        try:
            # An infinity or a NaN is an answer here, not an accident.
            with autograd.no_grad(), np.errstate(all="ignore"):
                result = self.forward(*tensors)
        finally:
            self.training = training
        return [handed_out(item) for item in (result if isinstance(result, tuple) else (result,))]

    def _check_inputs(self, tensors: Sequence[Any]) -> None:
        for value, tensor in zip(self.graph.inputs, tensors, strict=False):
            if value.type not in (None, SEQUENCE) and tensor.dtype != value.type.dtype:
                raise DTypeError(
                    f"input {value.name} is {tensor.dtype} but the model wants {value.type.dtype}"
                )
        for name, sizes, tensor in zip(self.inputs, self.input_sizes or (), tensors, strict=False):
            if not sizes:  # nothing is declared
                continue
            fits = len(sizes) == tensor.ndim and all(
                size in (None, actual) for size, actual in zip(sizes, tensor.shape, strict=True)
            )
            if not fits:
                wanted = ["?" if size is None else size for size in sizes]
                raise ShapeError(
                    f"input {name} has shape {list(tensor.shape)} but the model declares {wanted}; "
                    "to use other sizes, load it with input_shapes"
                )

    # ------------------------------------------------------------------------------ cutting

    def part(self, inputs: Sequence[Value], outputs: Sequence[Value]) -> GraphModule:
        """The part of the graph between values, sharing this module's parameters."""
        graph = self.graph.between(inputs, outputs)
        leaves = {value: self._leaves[value] for value in graph.arrays}
        part = GraphModule(graph, leaves=leaves)
        part.training, part.from_file = self.training, self.from_file
        return part

    def cut(self, at: str | Value) -> tuple[GraphModule, GraphModule]:
        """The parts before and after a cut point (a value or its name), sharing parameters.

        Raises ModelError when ``at`` is not a cut point; the message lists some.
        """
        points = {value.name: value for value in self.graph.cut_points()}
        name = at if isinstance(at, str) else at.name
        if name not in points:
            some = ", ".join(list(points)[-8:])
            raise ModelError(f"{name!r} is not a cut point of the model; the last ones are {some}")
        value = points[name]
        return self.part(self.graph.inputs, [value]), self.part([value], self.graph.outputs)

    def replace_head(self, classes: int, name: str | None = None) -> GraphModule:
        """The model with a new last layer of ``classes`` outputs, sharing everything else.

        ``name`` (of a node, its result or its weight) says which layer, where it is not found. Raises
        ModelError that lists the layers when none fits. See ``nnlite.graph.replace_head``.
        """
        from nnlite.graph.head import replace_head  # heads are made of modules

        return replace_head(self, classes, name)[0]

    def fused(self) -> GraphModule:
        """The same model with fewer passes over memory (``fuse_epilogue``), sharing all parameters.

        Transpositions that cancel one another go, too.
        """
        graph = fuse_epilogue(cancel_transpose(self.graph))
        leaves = {value: self._leaves[value] for value in graph.arrays}
        fused = GraphModule(graph, leaves=leaves, input_sizes=self.input_sizes)
        fused.training = self.training
        return fused

    def compile(
        self,
        precision: Precision = "fp32",
        calibration: Sequence[Array] = (),
        device: str | None = None,
    ) -> Plan:
        """A plan of the model with its weights as they are now: inference only, folded, fused, placed.

        ``precision`` of layers with weights: ``fp32``, ``bf16``, or ``int8``, whose ranges are measured on
        ``calibration``, an array for each input. It runs on ``device``, by default where the model is.
        Raises ConfigError for int8 without calibration, DeviceError for a device that is missing.
        """
        return Plan(self, precision, calibration, device)

    def current_graph(self) -> Graph:
        """The graph with the parameters as they are now, on the host, for passes that compute with them."""
        return replace(
            self.graph, arrays={value: to_host(leaf.array) for value, leaf in self._leaves.items()}
        )

    def outline(self) -> Graph:
        """The graph with the parameters where they lie, forgotten ones in their file: for their types."""
        return replace(self.graph, arrays={value: leaf.at_rest for value, leaf in self._leaves.items()})

    def replace_leaf(self, value: Value, array: Array) -> None:
        """Give a parameter a new array, which may have another shape (a new head)."""
        self._leaves[value] = Parameter(array)
