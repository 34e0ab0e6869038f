"""The pages docs/api/*.md: functions, layers, optimisers, networks, from signatures and docstrings."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

import nnlite as nl

HEADER = "<!-- Written by docs/make_pages.py from the docstrings; change those, not this. -->\n\n"
MODULES: dict[str, tuple[ModuleType, str]] = {
    "functional": (nl.functional, "Functions of tensors, usually `from nnlite import functional as F`."),
    "nn": (nl.nn, "Layers, losses and containers. A module's parameters and buffers have PyTorch's names."),
    "init": (nl.nn.init, "Initial values, `nl.nn.init`: each changes a parameter and returns it."),
    "utils": (nl.nn.utils, "Gradients clipped and weights reparametrised, `nl.nn.utils`."),
    "optim": (nl.optim, "Optimisers, learning-rate schedules and moving averages, `nl.optim`."),
    "zoo": (nl.zoo, "Well-known networks, `nl.zoo`; see [networks and weights](../zoo.md)."),
}


def names(module: ModuleType) -> list[str]:
    """The public classes and functions of a module."""
    listed = getattr(module, "__all__", None)
    if listed is None:
        own = vars(module).items()
        listed = [n for n, v in own if n[0] != "_" and getattr(v, "__module__", "") == module.__name__]
    found = [name for name in listed if callable(getattr(module, name))]
    return [name for name in found if hasattr(getattr(module, name), "__qualname__")]


def signature(name: str, item: Callable[..., Any]) -> str:
    """``name(x, size=3, *, flag=True)``: without types, which the source tells."""
    parts, starred = [], False
    for parameter in inspect.signature(item).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            parts.append("*")
            starred = True
        starred = starred or parameter.kind is parameter.VAR_POSITIONAL
        prefix = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
        parts.append(f"{prefix}{parameter.name}{default}")
    return f"{name}({', '.join(parts)})"


def text(item: Any) -> str:
    """The docstring as Markdown."""
    return re.sub(r":\w+:`[.~]?([^`]*)`", r"`\1`", inspect.getdoc(item) or "").replace("``", "`")


def section(title: str, module: ModuleType, listed: Iterable[str]) -> str:
    """What one source file holds."""
    parts = [f"## {title}\n"]
    for name in listed:
        item = getattr(module, name)
        parts.append(f"**`{signature(name, item)}`**\n\n{text(item)}\n")
    return "\n".join(parts)


def page(module: ModuleType, introduction: str) -> str:
    """One module, its parts in the order of the source files."""
    by_file: dict[str, list[str]] = {}
    for name in names(module):
        by_file.setdefault(getattr(module, name).__module__, []).append(name)
    sections = []
    for source, listed in sorted(by_file.items()):
        title = re.split(r"[;:.]", (sys.modules[source].__doc__ or source).splitlines()[0])[0]
        sections.append(section(title, module, listed))
    body = "\n".join(sections)
    return f"{HEADER}# {module.__name__}\n\n{introduction}\n\n{body}"


def pages() -> dict[str, str]:
    """File name -> text."""
    result = {f"{name}.md": page(module, introduction) for name, (module, introduction) in MODULES.items()}
    rows = [
        f"| [`{module.__name__}`]({name}.md) | {', '.join(f'`{n}`' for n in names(module))} |"
        for name, (module, _) in MODULES.items()
    ]
    result["README.md"] = (
        f"{HEADER}# Functions, layers, optimisers, networks\n\n"
        "Names and arguments are PyTorch's; [coming from PyTorch](../pytorch.md) says what differs. The "
        "mathematics of each operation stands in [every operation](../ops/README.md).\n\n"
        "| module | names |\n| --- | --- |\n" + "\n".join(rows) + "\n"
    )
    return result
