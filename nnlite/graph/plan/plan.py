"""Plan: a frozen network as it is now, compiled for inference."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from nnlite import memory, threads
from nnlite.device import CPU, device_of, is_array, moved, out_of_memory, resolve
from nnlite.errors import DTypeError, ModelError, ShapeError
from nnlite.graph.infer import infer_types
from nnlite.graph.interpret import interpret
from nnlite.graph.ir import Graph
from nnlite.graph.passes import PASSES, annotate
from nnlite.graph.plan.layout import Prepared
from nnlite.graph.plan.precision import Precision, check_precision, reduce
from nnlite.graph.plan.program import Bound, MemoryReport, Program
from nnlite.kernels import requested_backend
from nnlite.layout import Array
from nnlite.ops import ArrayType

if TYPE_CHECKING:
    from nnlite.graph.module import GraphModule

PROGRAMS = 8
"""Programs that a plan keeps: those for the shapes that were used last."""


def simplify(graph: Graph) -> Graph:
    """``graph`` after all passes."""
    for one in PASSES:
        graph = one(graph)
    return graph


class Plan:
    """A module's graph with its weights as they are now, compiled when first called.

    Passes and weights are done once, variants and memory once for each set of input shapes; a call then
    computes and allocates nothing but its results. Calls from several threads do not disturb one another:
    each has a block of its own.
    """

    def __init__(
        self,
        module: GraphModule,
        precision: Precision = "fp32",
        calibration: Sequence[Array] = (),
        device: str | None = None,
    ) -> None:
        """``precision`` of layers with weights; ``calibration``: inputs on which int8 measures ranges.

        It runs on ``device`` (see ``Tensor.to``), by default where the module's parameters are; results
        come back to where the inputs are. Raises ConfigError for an unknown precision, or int8 without
        calibration, DeviceError for a device that is missing.
        """
        check_precision(precision, calibration)
        own = next((state.device for state in (*module.parameters(), *module.buffers())), CPU)
        self.device = own if device is None else resolve(device)
        self.precision = precision
        self._calibration = tuple(calibration)
        self._source: Graph | None = module.current_graph()
        self._graph: Graph | None = None
        states = (*module.named_parameters(), *module.named_buffers())
        # Weak: where the module is gone, nobody changes its weights, and a plan need not keep them.
        self._versions = [(name, weakref.ref(state), state.version) for name, state in states]
        self._most = memory.max_tensor_bytes() if module.from_file else None
        self._prepared: Prepared = {}
        self._programs: OrderedDict[Any, Program | None] = OrderedDict()
        self._blocks: list[tuple[Array, dict[Program, Bound]]] = []
        self._settled = False
        self._lock = threading.Lock()
        self._like = moved(np.empty(0, np.uint8), self.device)

    # ----------------------------------------------------------------------------------- compiling

    def graph(self, types: Sequence[ArrayType]) -> Graph:
        """The graph after all passes; ``types`` of the inputs tell it more where it is made now."""
        if self._graph is None:
            assert self._source is not None
            source = self._source
            try:
                inputs = dict(zip(source.inputs, types, strict=True))
                source = annotate(source, infer_types(source, inputs))
            except NotImplementedError:  # shapes depend on data: the passes do with what is known
                pass
            self._graph = reduce(simplify(source), self.precision, self._calibration)
            self._source, self._calibration = None, ()
        return self._graph

    def program(self, types: Sequence[ArrayType]) -> Program | None:
        """The program for inputs of ``types``; None where shapes depend on data."""
        key = (tuple(types), requested_backend(), threads.get_num_threads())
        with self._lock:
            if key in self._programs:
                self._programs.move_to_end(key)
                return self._programs[key]
            if self._settled:
                raise ModelError(f"the plan was settled, and not for inputs {', '.join(map(str, types))}")
            graph = self.graph(types)
            try:
                program = Program(
                    graph,
                    dict(zip(graph.inputs, types, strict=True)),
                    self._prepared,
                    self._most,
                    self.device,
                )
            except NotImplementedError:
                program = None
            self._programs[key] = program
            if len(self._programs) > PROGRAMS:
                _, old = self._programs.popitem(last=False)
                for _, bound in self._blocks:
                    if old is not None:
                        bound.pop(old, None)
            return program

    def _check(self, arrays: Sequence[Array]) -> None:
        for name, reference, version in self._versions:
            state = reference()
            if state is not None and state.version != version:
                raise ModelError(f"{name} was changed after the plan was made; compile the module again")
        inputs = (self._graph or self._source).inputs  # type: ignore[union-attr]
        if len(arrays) != len(inputs):
            raise ShapeError(f"the plan has inputs {[v.name for v in inputs]} but {len(arrays)} were given")
        for value, array in zip(inputs, arrays, strict=True):
            if not is_array(array) or array.dtype.hasobject:
                raise DTypeError(
                    f"input {value.name} of the plan must be an array of numbers; a model of sequences runs "
                    "without a plan"
                )

    def settle(self, *inputs: Sequence[ArrayType]) -> None:
        """Compile for each of ``inputs`` and give back the memory of what others would be compiled from.

        The weights are then there only as kernels read them, and calls with inputs of other types raise
        ModelError. Where shapes depend on data nothing changes.
        """
        assert len(inputs) <= PROGRAMS
        programs = [program for types in inputs if (program := self.program(types)) is not None]
        if len(programs) < len(inputs):
            return
        with self._lock:
            assert self._graph is not None
            self._graph, self._prepared, self._settled = replace(self._graph, arrays={}), {}, True
            for program in programs:
                program.settle()

    # ------------------------------------------------------------------------------------- running

    def run(self, *arrays: Array) -> list[Array]:
        """All outputs, in order.

        Raises ModelError when the module's weights have changed since, ShapeError for other shapes than
        the model takes.
        """
        self._check(arrays)
        types = [ArrayType(array.shape, array.dtype) for array in arrays]
        program = self.program(types)
        if program is None:
            return interpret(self.graph(types), arrays, self._most, self.device)
        try:
            block, bound = self._take(program)
            try:
                results = program.run(block, bound[program], arrays)
            finally:
                self._give(block, bound)
        except MemoryError as error:
            raise out_of_memory("the plan", error) from error
        home = device_of(arrays[0]) if arrays else self.device
        return results if home == self.device else [moved(result, home) for result in results]

    def __call__(self, *arrays: Array) -> Array:
        """The first output."""
        return self.run(*arrays)[0]

    def _take(self, program: Program) -> tuple[Array, dict[Program, Bound]]:
        """A block that no other call uses, with the slots of ``program`` bound to it."""
        with self._lock:
            block, bound = self._blocks.pop() if self._blocks else (None, {})
        if block is None or block.nbytes < program.block_size:
            block, bound = memory.workspace(max(program.block_size, 1), self._like), {}
        if program not in bound:
            bound[program] = program.bind(block)
        return block, bound

    def _give(self, block: Array, bound: dict[Program, Bound]) -> None:
        with self._lock:
            self._blocks.append((block, bound))

    # ----------------------------------------------------------------------------------- reporting

    def _known_program(self, arrays: Sequence[Array]) -> Program:
        self._check(arrays)
        program = self.program([ArrayType(array.shape, array.dtype) for array in arrays])
        if program is None:
            raise ModelError("shapes depend on data here: the graph runs node by node, without a plan")
        return program

    def memory(self, *arrays: Array) -> MemoryReport:
        """Bytes of the program for inputs like ``arrays``, with planning and without.

        Raises ModelError where shapes depend on data.
        """
        return self._known_program(arrays).memory

    def fingerprint(self, types: Sequence[ArrayType]) -> str:
        """A hash of all that the results depend on: steps, kernel variants, instruction set, weights.

        Raises ModelError where shapes depend on data.
        """
        program = self.program(types)
        if program is None:
            raise ModelError("shapes depend on data here: the graph runs node by node, without a plan")
        return program.fingerprint()

    def profile(self, *arrays: Array, repeats: int = 5) -> list[dict[str, Any]]:
        """What every step is, and the least of ``repeats`` measurements of the seconds that it takes.

        Raises ModelError where shapes depend on data.
        """
        program = self._known_program(arrays)
        block, bound = self._take(program)
        try:
            runs = [program.timed(block, bound[program], arrays) for _ in range(repeats)]
        finally:
            self._give(block, bound)
        return program.rows([min(times) for times in zip(*runs, strict=True)])


def compile(
    module: GraphModule,
    precision: Precision = "fp32",
    calibration: Sequence[Array] = (),
    device: str | None = None,
) -> Plan:
    """A plan of ``module`` with its weights as they are now; see :class:`Plan`."""
    return Plan(module, precision, calibration, device)
