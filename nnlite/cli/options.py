"""Flags made from the fields of a configuration."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, TypeVar

import click

from nnlite.transfer.options import Entry, entries

F = TypeVar("F", bound=Callable[..., Any])


def options_of(config: type, without: Collection[str] = ()) -> Callable[[F], F]:
    """A decorator that gives a command one flag for every option of ``config``, in their order."""

    def decorate(command: F) -> F:
        for entry in reversed(entries(config)):
            command = command if entry.name in without else _flag(entry)(command)
        return command

    return decorate


def was_told(name: str) -> bool:
    """Whether the user gave this argument of the command that runs, rather than leaving its default."""
    source = click.get_current_context().get_parameter_source(name)
    return source not in (None, click.core.ParameterSource.DEFAULT)


def option_of(config: type, name: str) -> Callable[[F], F]:
    """The flag of one option, for another command that shares it."""
    return _flag(next(entry for entry in entries(config) if entry.name == name))


def _flag(entry: Entry) -> Callable[[F], F]:
    name, option = f"--{entry.name.replace('_', '-')}", entry.option
    about: dict[str, Any] = {"default": entry.default, "show_default": True, "help": option.help}
    if entry.kind is bool:
        negative = f"--no-{name[2:]}" if option.negative is None else option.negative
        return click.option(f"{name}/{negative}" if negative else name, is_flag=True, **about)
    kind = click.Choice(list(entry.choices)) if entry.choices else entry.kind
    return click.option(name, type=kind, metavar=option.metavar, **about)
