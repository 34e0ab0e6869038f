"""What all optimisers share: parameter groups, state, saving."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from nnlite import layout, memory
from nnlite.device import is_array, moved, to_host
from nnlite.errors import ConfigError, GradientError, ModelError
from nnlite.geometry import EltwiseGeometry
from nnlite.kernels import launch
from nnlite.layout import Array
from nnlite.nn.parameter import Parameter
from nnlite.node import Value
from nnlite.tensors import Tensor

Group = dict[str, Any]
"""``{"params": [...], "lr": ..., ...}``: parameters and the options that hold for them."""


class Optimizer:
    """Base of all optimisers. A subclass defines ``check`` and ``update`` for one parameter.

    The option ``maximize``, where a subclass has it, climbs: gradients count with the opposite sign.

    ``params``: parameters, or groups ``{"params": parameters, option: value, ...}`` whose options
    override ``defaults``. Raises ConfigError for an empty group, a parameter in two groups, a tensor
    that is no Parameter, an unknown option or a value out of range.
    """

    def __init__(
        self, params: Iterable[Parameter] | Iterable[Mapping[str, Any]], defaults: Mapping[str, Any]
    ) -> None:
        self.defaults = dict(defaults)
        self.param_groups: list[Group] = []
        self.state: dict[Parameter, dict[str, Any]] = {}
        """What is remembered of each parameter that was updated."""
        listed: list[Any] = list(params)
        if not any(isinstance(item, Mapping) for item in listed):
            listed = [{"params": listed}]
        for group in listed:
            self.add_param_group(group)

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Train more parameters, with options of their own; ConfigError as for the constructor."""
        name = type(self).__name__
        if not isinstance(group, Mapping) or "params" not in group:
            raise ConfigError(f"{name}: {group!r} must be a group with 'params', as all others are")
        unknown = set(group) - {"params"} - set(self.defaults)
        if unknown:
            raise ConfigError(
                f"{name}: unknown option {', '.join(sorted(unknown))}; there are {', '.join(self.defaults)}"
            )
        given = group["params"]
        parameters = [given] if isinstance(given, Parameter) else list(given)
        if not parameters:
            raise ConfigError(f"{name}: group {len(self.param_groups)} has no parameters; leave it out")
        known = {p for other in self.param_groups for p in other["params"]}
        for parameter in parameters:
            if not isinstance(parameter, Parameter):
                raise ConfigError(f"{name}: {type(parameter).__name__} is no nn.Parameter; make it one")
            if parameter in known:
                raise ConfigError(
                    f"{name}: a parameter of shape {list(parameter.shape)} appears twice; "
                    "put it into one group, once"
                )
            known.add(parameter)
        complete = {**self.defaults, **group, "params": parameters}
        self.check(complete)
        self.param_groups.append(complete)

    def check(self, group: Group) -> None:
        """Raise ConfigError where an option of ``group`` is out of range."""
        for option in ("lr", "weight_decay"):
            if not group[option] >= 0:
                raise ConfigError(f"{type(self).__name__}: {option}={group[option]} must not be negative")

    def update(self, weight: Array, gradient: Array, state: dict[str, Any], group: Group) -> None:
        """Change ``weight`` in place; ``state`` is this parameter's, empty at first."""
        raise NotImplementedError

    def step(self) -> None:
        """Update every parameter that has a gradient and is not frozen."""
        for group in self.param_groups:
            for parameter in group["params"]:
                self._step(parameter, group)

    def _step(self, parameter: Parameter, group: Group) -> None:
        gradient = parameter.grad
        if gradient is not None and parameter.requires_grad:
            state, weight = self.state.setdefault(parameter, {}), parameter.writable()
            for key, value in state.items():
                if is_array(value) and type(value) is not type(weight):  # the parameter was moved since
                    state[key] = moved(value, parameter.device)
            slope = -gradient.array if group.get("maximize") else gradient.array
            self.update(weight, slope, state, group)

    def step_in_backward(self, loss: Tensor) -> None:
        """``zero_grad(); loss.backward(); step()`` in one, with few gradients in memory at any time.

        A parameter is updated and its gradient freed as soon as nothing is left that adds to it, while
        backward goes on to the layers below; the numbers are the same, bit for bit. It is no way for what
        needs all gradients together: clipping by their common norm, or adding up those of several
        batches. Raises GradientError where gradients of an earlier backward are there, or when ``loss``
        was not recorded; ConfigError for an optimiser whose step is not one of each parameter alone.
        """
        if type(self).step is not Optimizer.step:
            raise ConfigError(
                f"{type(self).__name__}: its step needs all gradients at once; call backward, then step"
            )
        groups = {p._value: (p, group) for group in self.param_groups for p in group["params"]}
        if any(parameter.grad is not None for parameter, _ in groups.values()):
            raise GradientError(
                "step_in_backward: there are gradients of an earlier backward, which it cannot add to; "
                "call zero_grad first, or add up with backward and then step"
            )

        def ready(leaf: Value) -> None:
            if leaf in groups:
                parameter, group = groups[leaf]
                self._step(parameter, group)
                parameter.grad = None

        loss.backward(ready=ready)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients; with ``set_to_none`` False they become zeros."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if set_to_none:
                    parameter.grad = None
                elif parameter.grad is not None:
                    parameter.grad.writable()[...] = 0

    def state_dict(self) -> dict[str, Any]:
        """Copies of all state: ``{"state": {index: ...}, "param_groups": [...]}``, as in PyTorch.

        Parameters are numbered in the order of the groups; arrays are in the machine's memory.
        """
        index = {p: i for i, p in enumerate(self._parameters())}
        groups = [{**group, "params": [index[p] for p in group["params"]]} for group in self.param_groups]
        state = {
            index[p]: {k: to_host(v).copy() if is_array(v) else v for k, v in entry.items()}
            for p, entry in self.state.items()
        }
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned, options included.

        Raises ModelError when groups or shapes differ from this optimiser's.
        """
        sizes = [len(group["params"]) for group in self.param_groups]
        saved = [len(group["params"]) for group in state_dict["param_groups"]]
        if sizes != saved:
            raise ModelError(
                f"{type(self).__name__}: the saved groups have {saved} parameters, these have {sizes}"
            )
        parameters = self._parameters()
        state: dict[Parameter, dict[str, Any]] = {}
        for index, entry in state_dict["state"].items():
            parameter = parameters[int(index)]
            state[parameter] = {}
            for key, value in entry.items():
                if isinstance(value, np.ndarray):
                    if value.shape != parameter.shape:
                        raise ModelError(
                            f"{type(self).__name__}: {key} of parameter {index} has shape "
                            f"{list(value.shape)} but must be {list(parameter.shape)}"
                        )
                    value = moved(copy_of(value.astype(parameter.dtype, copy=False)), parameter.device)
                state[parameter][key] = value
        self.state = state
        for group, options in zip(self.param_groups, state_dict["param_groups"], strict=True):
            group.update({key: value for key, value in options.items() if key != "params"})

    def _parameters(self) -> list[Parameter]:
        return [p for group in self.param_groups for p in group["params"]]

    def __repr__(self) -> str:
        groups = [
            f"  {len(group['params'])} parameters: "
            + ", ".join(f"{key}={value}" for key, value in group.items() if key != "params")
            for group in self.param_groups
        ]
        return f"{type(self).__name__}(\n" + "\n".join(groups) + "\n)"


def copy_of(array: Array) -> Array:
    """A copy in the memory order of parameters."""
    copy = memory.empty(array.shape, array.dtype, like=array)
    copy[...] = array
    return copy


def zeros_of(array: Array) -> Array:
    """Zeros of the shape and type of ``array`` in the memory order of parameters."""
    zeros = memory.empty(array.shape, array.dtype, like=array)
    zeros[...] = 0
    return zeros


@lru_cache(maxsize=4096)
def _geometry(size: int) -> EltwiseGeometry:
    """Made once for each size, because hashing a new one costs microseconds."""
    return EltwiseGeometry(size)


def run_step(
    kernel: str, inputs: Sequence[Array | None], options: Sequence[float], outputs: Sequence[Array | None]
) -> None:
    """Launch an optimiser's kernel on arrays in the memory order of parameters; outputs may be inputs."""
    present = [array for array in (*inputs, *outputs) if array is not None]
    flat = layout.runs(*present)
    if flat is None:  # a gradient that came from elsewhere: only kernels keep the order of parameters
        inputs = [a if a is None or layout.is_channels_last(a) else copy_of(a) for a in inputs]
        flat = layout.runs(*(array for array in (*inputs, *outputs) if array is not None))
        assert flat is not None
    views = iter(flat)
    operands = [None if array is None else next(views) for array in (*inputs, *outputs)]
    numbers = np.array(options, present[0].dtype)
    before, after = operands[: len(inputs)], operands[len(inputs) :]
    launch(kernel, _geometry(present[0].size), *before, numbers, *after)
