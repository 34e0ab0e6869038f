"""Exponential moving average of a module's parameters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nnlite.device import device_of, moved, to_host
from nnlite.errors import ConfigError
from nnlite.layout import Array
from nnlite.nn.module import Module
from nnlite.nn.parameter import State


class EMA:
    """average = decay · average + (1 - decay) · parameter, after each ``update()``; buffers are copied.

    ``applied()`` puts the average into the module for the length of a ``with`` block, to evaluate or
    save it. Raises ConfigError unless 0 ≤ decay < 1. Source: Polyak and Juditsky 1992;
    torch.optim.swa_utils.AveragedModel with get_ema_multi_avg_fn.
    """

    def __init__(self, module: Module, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ConfigError(f"EMA: decay={decay} must be in [0, 1)")
        self.module, self.decay = module, decay
        self.average = module.state_dict()

    def update(self) -> None:
        """Move the average towards the parameters as they are now."""
        learned = {name for name, _ in self.module.named_parameters()}
        for name, state in self.module._states(State):
            kept, value = self.average[name], state.array
            if type(kept) is not type(value):  # the module was moved since
                kept = self.average[name] = moved(kept, state.device)
            if name in learned:
                kept += kept.dtype.type(1 - self.decay) * (value - kept)
            else:
                kept[...] = value

    @contextmanager
    def applied(self) -> Iterator[Module]:
        """The module with the average as its parameters; afterwards it has its own again."""
        own = self.module.state_dict()
        self.module.load_state_dict(self.state_dict())
        try:
            yield self.module
        finally:
            self.module.load_state_dict(own)

    def state_dict(self) -> dict[str, Array]:
        """Copies of the averages, by name."""
        return {name: to_host(value).copy() for name, value in self.average.items()}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        """Continue from what :meth:`state_dict` returned."""
        for name, kept in self.average.items():
            kept[...] = moved(state[name], device_of(kept))
