"""Module: a function with parameters, made of smaller modules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import numpy as np

from nnlite.device import resolve, to_host
from nnlite.errors import ConfigError, ModelError
from nnlite.layout import Array
from nnlite.nn.hooks import Handle, Hook, call_with_backward_hooks
from nnlite.nn.parameter import Buffer, Parameter, State
from nnlite.tensors import Tensor

Self = TypeVar("Self", bound="Module")
Kind = TypeVar("Kind", bound=State)
Item = TypeVar("Item")

IGNORED = "num_batches_tracked"
"""What PyTorch saves with BatchNorm and nothing here needs."""


class LoadReport(NamedTuple):
    """What ``load_state_dict(strict=False)`` could not match."""

    missing: list[str]
    unexpected: list[str]


class Module:
    """Base of all layers and models. A subclass sets attributes and defines ``forward``.

    Attributes that are Parameters, Buffers or Modules (or lists and tuples of Modules) belong to the
    module; their dotted names are PyTorch's: ``features.0.weight``.

    *Freezing* a module (``freeze``) takes its parameters out of training: no gradient is computed for
    them, and the module runs in inference form whatever ``train()`` says: BatchNorm uses its running
    statistics and leaves them alone, Dropout does nothing.
    """

    training: bool = True
    _frozen: bool = False  # what freeze() said last; decides where there are no parameters to ask

    forward: Callable[..., Tensor]
    """Computes the module's output; every subclass defines it."""

    _hooks: Mapping[str, list[Hook]] = MappingProxyType({})

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """The output of :attr:`forward`, with the registered hooks called around it."""
        if not self._hooks:
            return self.forward(*args, **kwargs)
        for hook in [*self._hooks["before"]]:
            replaced = hook(self, args)
            if replaced is not None:
                args = replaced if isinstance(replaced, tuple) else (replaced,)
        result: Any
        if self._hooks["backward"]:
            watchers = tuple(self._hooks["backward"])
            result = call_with_backward_hooks(self, self.forward, watchers, args, kwargs)
        else:
            result = self.forward(*args, **kwargs)
        for hook in [*self._hooks["after"]]:
            replaced = hook(self, args, result)
            result = result if replaced is None else replaced
        output: Tensor = result
        return output

    def _register(self, when: str, hook: Hook) -> Handle:
        if not self._hooks:
            self._hooks = {"before": [], "after": [], "backward": []}
        return Handle(self._hooks[when], hook)

    def register_forward_pre_hook(self, hook: Hook) -> Handle:
        """Call ``hook(module, args)`` before each forward; what it returns, if anything, replaces args."""
        return self._register("before", hook)

    def register_forward_hook(self, hook: Hook) -> Handle:
        """Call ``hook(module, args, output)`` after each forward; what it returns replaces the output."""
        return self._register("after", hook)

    def register_full_backward_hook(self, hook: Hook) -> Handle:
        """Call ``hook(module, grad_inputs, grad_outputs)`` in backward; see ``nn.hooks``."""
        return self._register("backward", hook)

    def register_buffer(self, name: str, tensor: Any, persistent: bool = True) -> None:
        """Keep ``tensor`` (array or None) as attribute ``name``, saved with the parameters if persistent."""
        if tensor is not None:
            tensor = Buffer(tensor) if persistent else Tensor(np.array(tensor))
        setattr(self, name, tensor)

    def register_parameter(self, name: str, parameter: Parameter | None) -> None:
        """Keep ``parameter`` as attribute ``name``."""
        setattr(self, name, parameter)

    def apply(self: Self, function: Callable[[Module], Any]) -> Self:
        """Call ``function`` on every module below this one, then on this one: for initial values."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    # -------------------------------------------------------------------------------- the tree

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules directly below this one, by attribute name."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value
            elif isinstance(value, (list, tuple)):
                for i, item in enumerate(value):
                    if isinstance(item, Module):
                        yield f"{name}.{i}", item

    def children(self) -> Iterator[Module]:
        """The modules directly below this one."""
        return (child for _, child in self.named_children())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module (named ``prefix``) and all below it, each once, parents first."""
        return _each_once(self._places(prefix))

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once."""
        return (module for _, module in self.named_modules())

    def named_parameters(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Parameter]]:
        """Parameters with dotted names, each once (under its first name), frozen ones too."""
        return _each_once(self._states(Parameter, prefix, recurse))

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Parameters, each once, frozen ones too."""
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def named_buffers(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Buffer]]:
        """Buffers with dotted names, each once (under its first name)."""
        return _each_once(self._states(Buffer, prefix, recurse))

    def buffers(self, recurse: bool = True) -> Iterator[Buffer]:
        """Buffers, each once."""
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def _own_states(self) -> Iterator[tuple[str, State]]:
        """Parameters and buffers of this module itself; override where they are not attributes."""
        return ((name, value) for name, value in vars(self).items() if isinstance(value, State))

    def _places(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Module]]:
        """Every place in the tree; a module that is shared has several."""
        yield prefix, self
        if recurse:
            for name, child in self.named_children():
                yield from child._places(_joined(prefix, name))

    def _states(self, kind: type[Kind], prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Kind]]:
        """Parameters and buffers of one kind in every place that holds them."""
        for path, module in self._places(prefix, recurse):
            for name, state in module._own_states():
                if isinstance(state, kind):
                    yield _joined(path, name), state

    # -------------------------------------------------------------------------- saving, loading

    def state_dict(self) -> dict[str, Array]:
        """Copies of all parameters and buffers, row-major in the machine's memory, by dotted name."""
        return {name: np.array(to_host(state.array), order="C") for name, state in self._states(State)}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> LoadReport:
        """Set parameters and buffers from ``state`` (arrays by dotted name), all of them or none.

        Elements are converted to the type that the module has. ``num_batches_tracked`` of PyTorch's
        BatchNorm is ignored. Raises ModelError that names every missing and unexpected key (unless
        ``strict`` is False) and every wrong shape.
        """
        own = dict(self._states(State))
        given = {n: v.array if isinstance(v, Tensor) else np.asarray(v) for n, v in state.items()}
        missing = [name for name in own if name not in given]
        unexpected = [name for name in given if name not in own and name.split(".")[-1] != IGNORED]
        problems = [
            f"{name} has shape {list(given[name].shape)} but must be {list(own[name].shape)}"
            for name in own
            if name in given and given[name].shape != own[name].shape
        ]
        if strict and missing:
            problems.append(f"missing: {', '.join(missing)}")
        if strict and unexpected:
            problems.append(f"unexpected: {', '.join(unexpected)}")
        if problems:
            remedy = "; strict=False loads what fits by name" if strict and (missing or unexpected) else ""
            raise ModelError(f"load_state_dict({type(self).__name__}): {'; '.join(problems)}{remedy}")
        for name, tensor in own.items():
            if name in given:
                tensor.assign(given[name])
        return LoadReport(missing, unexpected)

    # --------------------------------------------------------------------------------- devices

    def to(self: Self, device: str) -> Self:
        """Put all parameters and buffers on "cpu", "cuda", "cuda:<number>" or "auto", for good.

        They stay the same objects: an optimiser made before goes on, its state follows. Inputs have to be
        on the same device. Raises what :meth:`Tensor.to` raises.
        """
        name = resolve(device)
        for module in self.modules():
            for _, state in module._own_states():
                state.move(name)
            for attribute, value in vars(module).items():
                if isinstance(value, Tensor) and not isinstance(value, State):
                    setattr(module, attribute, value.to(name))
        return self

    # -------------------------------------------------------------------------------- training

    def train(self: Self, mode: bool = True) -> Self:
        """Switch this module and all below it to training (or, with False, to evaluation)."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self: Self) -> Self:
        """Switch to evaluation: BatchNorm uses its running statistics, Dropout does nothing."""
        return self.train(False)

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self.parameters():
            parameter.grad = None

    @property
    def frozen(self) -> bool:
        """True when no parameter at or below this module is trained.

        A module without parameters is frozen when ``freeze`` said so.
        """
        parameter = None
        for parameter in self.parameters():
            if parameter.requires_grad:
                return False
        return self._frozen if parameter is None else True

    def freeze(
        self: Self, recurse: bool = True, keys: str | Sequence[str] | None = None, strict: bool = False
    ) -> Self:
        """Take parameters out of training, and forget their gradients. Doing so twice changes nothing.

        ``recurse``: also in all modules below. ``keys``: only parameters of these attribute names
        ("bias"). ``strict``: raise ConfigError for a key that no module has.
        """
        self._set_frozen(True, recurse, keys, strict)
        return self

    def unfreeze(
        self: Self, recurse: bool = True, keys: str | Sequence[str] | None = None, strict: bool = False
    ) -> Self:
        """Train parameters (again); the inverse of :meth:`freeze`, with the same arguments."""
        self._set_frozen(False, recurse, keys, strict)
        return self

    def _set_frozen(
        self, frozen: bool, recurse: bool, keys: str | Sequence[str] | None, strict: bool
    ) -> None:
        wanted = None if keys is None else {keys} if isinstance(keys, str) else set(keys)
        modules = list(self.modules()) if recurse else [self]
        chosen = [
            (name, value)
            for module in modules
            for name, value in module._own_states()
            if isinstance(value, Parameter) and (wanted is None or name in wanted)
        ]
        if strict and wanted and (unknown := wanted - {name for name, _ in chosen}):
            raise ConfigError(
                f"{'freeze' if frozen else 'unfreeze'}: {type(self).__name__} has no parameter named "
                f"{', '.join(sorted(unknown))}; see named_parameters()"
            )
        for _, parameter in chosen:
            parameter.requires_grad = not frozen
            if frozen:
                parameter.grad = None
        if wanted is None:
            for module in modules:
                module._frozen = frozen

    # ---------------------------------------------------------------------------------- display

    def extra_repr(self) -> str:
        """The layer's options, for ``repr``."""
        return ""

    def __repr__(self) -> str:
        head = type(self).__name__
        # Only a leaf says that it is frozen: where all are, the tree shows it.
        children = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in self.named_children()]
        if not children:
            return f"{head}({self.extra_repr()})" + (" frozen" if self.frozen else "")
        lines = [*filter(None, [self.extra_repr()]), *children]
        return f"{head}(\n  " + "\n  ".join(lines) + "\n)"


def _joined(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _each_once(named: Iterable[tuple[str, Item]]) -> Iterator[tuple[str, Item]]:
    seen: set[int] = set()
    for name, item in named:
        if id(item) not in seen:
            seen.add(id(item))
            yield name, item
