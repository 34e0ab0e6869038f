"""ONNX's operator schemas: what a node must look like, in every operator set.

They are facts, so they stand in a table, ``schemas.txt``: asking onnx for one of them registers all, for
8 MB. What the table does not have (operators that are newer) is asked of onnx all the same.
``make schemas`` writes the table anew from the onnx at hand.

A line is ``operator since | least most inputs | least most outputs | attributes``. An input is
``name:letter:type``, with ``?`` where it may be absent, ``*`` where it stands for any number, ``~`` where
their types may differ. A type is a set of element types, defined by an ``=`` line; formals of one letter
share one of them. An attribute is ``name:type``, with ``!`` where it must be given.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("schemas.txt")


@dataclass(frozen=True)
class Formal:
    """An input or output as an operator declares it."""

    name: str
    variable: str
    """The type variable: formals that share one are of one type."""
    types: frozenset[str]
    """``float``, ``int64``, ``seq(tensor(float))``..."""
    kind: str
    """``?`` where it may be absent, ``*`` where it stands for any number, else nothing."""
    homogeneous: bool = True
    """Whether all that a ``*`` stands for are of one type."""


@dataclass(frozen=True)
class Schema:
    """What ONNX says of an operator."""

    operator: str
    since: int
    """The operator set that it has this form from."""
    deprecated: bool
    inputs: tuple[Formal, ...]
    input_counts: tuple[int, int]
    outputs: tuple[Formal, ...]
    output_counts: tuple[int, int]
    attributes: dict[str, tuple[str, bool]]
    """Type (``INT``, ``FLOATS``...) and whether it must be given."""


@lru_cache(maxsize=1)
def _table() -> tuple[int, dict[str, frozenset[str]], dict[str, list[tuple[int, str]]]]:
    """The newest operator set of the table, sets of types, and lines by operator."""
    newest, types = 0, {}
    by_operator: dict[str, list[tuple[int, str]]] = {}
    for line in TABLE.read_text("ascii").splitlines():
        first, second, rest = line.split(" ", 2)
        if first == "=":
            types[second] = frozenset(rest.split())
        elif first == "#":
            newest = int(second)
        else:
            by_operator.setdefault(first, []).append((int(second), rest))
    return newest, types, by_operator


def newest_opset(wanted: int = 0) -> int:
    """The newest operator set of the table; onnx's own where that is older than ``wanted``."""
    newest = _table()[0]
    if wanted <= newest:
        return newest
    import onnx

    return max(newest, onnx.defs.onnx_opset_version())


@lru_cache(maxsize=1024)
def schema(operator: str, opset: int) -> Schema:
    """The schema of ``operator`` in operator set ``opset``; KeyError where it has none."""
    newest, _, by_operator = _table()
    if opset <= newest:
        for since, line in reversed(by_operator.get(operator, [])):
            if since <= opset:
                return _parsed(operator, since, line)
    return _asked(operator, opset)


def _parsed(operator: str, since: int, line: str) -> Schema:
    types = _table()[1]
    flags, inputs, outputs, attributes = (part.split() for part in line.split("|"))

    def formals(words: list[str]) -> Iterator[Formal]:
        for word in words[2:]:
            name, variable, of = word.split(":")
            kind = of.strip("~")[-1] if of.strip("~")[-1] in "?*" else ""
            yield Formal(name, variable, types[of.rstrip("?*~")], kind, not of.endswith("~"))

    return Schema(
        operator,
        since,
        "deprecated" in flags,
        tuple(formals(inputs)),
        (int(inputs[0]), int(inputs[1])),
        tuple(formals(outputs)),
        (int(outputs[0]), int(outputs[1])),
        {
            name: (kind.rstrip("!"), kind.endswith("!"))
            for name, kind in (word.split(":") for word in attributes)
        },
    )


def _asked(operator: str, opset: int) -> Schema:
    """The schema that onnx has."""
    import onnx

    try:
        return _of_onnx(onnx.defs.get_schema(operator, opset, ""))
    except onnx.defs.SchemaError:
        raise KeyError(operator) from None


def _of_onnx(given: Any) -> Schema:
    # A formal's own ``types`` say the same, but cannot be read in onnx 1.20.
    allowed = {c.type_param_str: c.allowed_type_strs for c in given.type_constraints}

    def formal(one: Any) -> Formal:
        types = frozenset(_plain(text) for text in allowed.get(one.type_str, [one.type_str]))
        kind = {"Optional": "?", "Variadic": "*"}.get(one.option.name, "")
        return Formal(one.name, _plain(one.type_str), types, kind, bool(one.is_homogeneous))

    return Schema(
        given.name,
        given.since_version,
        bool(given.deprecated),
        tuple(map(formal, given.inputs)),
        (given.min_input, given.max_input),
        tuple(map(formal, given.outputs)),
        (given.min_output, given.max_output),
        {name: (one.type.name, bool(one.required)) for name, one in sorted(given.attributes.items())},
    )


def _plain(text: str) -> str:
    """``float`` for ``tensor(float)``."""
    inner = text.removeprefix("tensor(")
    return inner.removesuffix(")") if inner != text else text.replace(" ", "")


def lines() -> Iterator[str]:
    """The lines of the table, from what onnx has."""
    import onnx

    given = [one for one in onnx.defs.get_all_schemas_with_history() if not one.domain]
    schemas = sorted(map(_of_onnx, given), key=lambda one: (one.operator, one.since))
    formals = [formal for one in schemas for formal in (*one.inputs, *one.outputs)]
    sets = sorted({tuple(sorted(formal.types)) for formal in formals})
    names = {types: types[0] if len(types) == 1 else f"t{i}" for i, types in enumerate(sets)}

    def side(counts: tuple[int, int], formals: tuple[Formal, ...]) -> str:
        words = list(map(str, counts))
        for one in formals:
            kind = names[tuple(sorted(one.types))] + one.kind + "~" * (not one.homogeneous)
            words.append(f"{one.name}:{one.variable}:{kind}")
        return " ".join(words)

    yield f"# {onnx.defs.onnx_opset_version()} is the newest operator set here; from onnx {onnx.__version__}"
    for types, name in names.items():
        yield f"= {name} {' '.join(types)}"
    for one in schemas:
        attributes = [f"{name}:{kind}{'!' * needed}" for name, (kind, needed) in one.attributes.items()]
        yield " | ".join([
            f"{one.operator} {one.since}{' deprecated' * one.deprecated}",
            side(one.input_counts, one.inputs), side(one.output_counts, one.outputs), " ".join(attributes),
        ]).rstrip()  # fmt: skip
