"""How an option is declared: once, as a field; its flag, its help, its check and its place in a file follow.

    epochs: int = option(8, "Epochs with the unfrozen stages.", least=0)

Nothing heavy is imported here: ``--help`` reads the options and nothing else.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

from nnlite.errors import ConfigError

WORDS: dict[type, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


@dataclass(frozen=True)
class Option:
    """What is known of an option beside its name, type and default."""

    help: str
    metavar: str | None = None
    least: float | None = None
    """The smallest value that is allowed; ``above``: values must be larger than that."""
    above: float | None = None
    most: float | None = None
    """The largest value that is allowed; ``below``: values must be smaller than that."""
    below: float | None = None
    check: Callable[[Any], str | None] | None = None
    """For what ranges and choices cannot say: the rule that a value breaks, or None."""
    negative: str | None = None
    """The flag that switches off, where it is not ``--no-NAME``; empty for none."""


class Entry(NamedTuple):
    """One option of a configuration."""

    name: str
    kind: type
    """int, float, bool or str."""
    optional: bool
    """Whether it may be None."""
    choices: tuple[str, ...]
    """What it must be one of, where its type is a ``Literal``."""
    default: Any
    option: Option


def option(default: Any, help: str, **rules: Any) -> Any:
    """A field of a configuration that is an option; ``rules`` are those of :class:`Option`."""
    return dataclasses.field(default=default, metadata={"option": Option(help, **rules)})


@cache
def entries(config: Any) -> tuple[Entry, ...]:
    """The options of a configuration class, in the order of its fields."""
    return tuple(_entries(config))


def _entries(config: type) -> Iterator[Entry]:
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        if "option" in field.metadata:
            hint, choices = hints[field.name], ()
            if typing.get_origin(hint) is Literal:
                hint, choices = str, typing.get_args(hint)
            kinds = set(typing.get_args(hint) or (hint,))
            optional = types.NoneType in kinds
            (kind,) = kinds - {types.NoneType}
            yield Entry(field.name, kind, optional, choices, field.default, field.metadata["option"])


def check(config: Any) -> None:
    """ConfigError naming option, value and rule where a field of ``config`` breaks its own.

    Whole numbers become floats where those are wanted, as in ``0`` for ``0.0`` in a file.
    """
    for entry in entries(config.__class__):
        value = getattr(config, entry.name)
        if value is None and entry.optional:
            continue
        if entry.kind is float and type(value) is int:
            value = float(value)
            object.__setattr__(config, entry.name, value)
        if type(value) is not entry.kind:
            rule: str | None = f"must be {WORDS[entry.kind]}"
        elif entry.choices and value not in entry.choices:
            rule = f"must be one of {', '.join(entry.choices)}"
        else:
            rule = broken(entry.option, value)
        if rule is not None:
            raise ConfigError(f"{entry.name}={value!r} {rule}")


def broken(option: Option, value: Any) -> str | None:
    """The rule of ``option`` that ``value`` breaks, in words, or None."""
    least, most, above, below = option.least, option.most, option.above, option.below
    if least is not None and most is not None and not least <= value <= most:
        return f"must be {least:g} to {most:g}"
    # Written so that NaN breaks every one of them.
    if least is not None and not value >= least:
        return f"must be at least {least:g}"
    if most is not None and not value <= most:
        return f"must be at most {most:g}"
    if above is not None and not value > above:
        return f"must be above {above:g}" if above else "must be positive"
    if below is not None and not value < below:
        return f"must be below {below:g}"
    return option.check(value) if option.check is not None else None
