"""A configuration in a TOML file: one line an option, named as its flag is, with underscores.

model = "mobilenet_v2.onnx"
data = "pictures/"
recipe = "partial"
epochs = 12
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from nnlite.errors import ConfigError
from nnlite.transfer.config import FinetuneConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LARGEST = 1 << 20
"""Bytes of a file that are read: a configuration has a few hundred."""


def read_options(path: str | Path) -> dict[str, Any]:
    """The options that a TOML file gives. Raises ConfigError naming the file and what is wrong in it."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise ConfigError(f"--config {path}: has more than {LARGEST} bytes; give a configuration")
        content: dict[str, Any] = tomllib.loads(data.decode("utf-8"))
    except OSError as error:
        raise ConfigError(f"--config {path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # of both TOML and UTF-8
        raise ConfigError(f"--config {path}: is not TOML: {error}") from None
    known = [field.name for field in fields(FinetuneConfig)]
    for name, value in content.items():
        if name not in known:
            near = difflib.get_close_matches(name.replace("-", "_"), known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"--config {path}: there is no option {name!r}{hint}")
        if isinstance(value, (dict, list)) or not isinstance(value, (bool, int, float, str)):
            raise ConfigError(f"--config {path}: {name} must be text, a number, true or false")
    return content


def make_config(options: Mapping[str, Any], source: str = "") -> FinetuneConfig:
    """A configuration of ``options``; ConfigError where model or data are missing, or a value is wrong."""
    for name in ("model", "data"):
        if not isinstance(options.get(name), str):
            where = f" in {source}" if source else " in the file of --config"
            raise ConfigError(f'{name.upper()} is missing: give it, or a line {name} = "..."{where}')
    return FinetuneConfig(**options)


def to_toml(options: Mapping[str, Any]) -> str:
    """The file that gives ``options``; those that are None are left out."""
    lines = [f"{name} = {_literal(value)}\n" for name, value in options.items() if value is not None]
    return "".join(lines)


def _literal(value: Any) -> str:
    if isinstance(value, float):
        return repr(value)  # inf and nan are TOML's words, too
    # JSON's texts, numbers, true and false are TOML's, but for a character that only TOML escapes.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
