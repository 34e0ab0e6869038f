"""How many of ONNX's node tests are refused, by how common their operators are and by element types.

    python tests/onnx/official_counts.py

Operators come in tiers (op_tiers.tsv): 1 what nearly every vision model uses, 2 what most do, 3 what some
do. Counted are tests of single operators; their expansions into simpler ones are tests of ONNX's own text.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import TensorProto as T

HERE = Path(__file__).parent
FLOAT32 = {T.FLOAT, T.INT64, T.INT32, T.BOOL}
"""Element types of a model in single precision, with the indices and truth values that it computes."""
STANDARD = FLOAT32 | {T.DOUBLE, T.FLOAT16, T.BFLOAT16, T.INT8, T.INT16, T.UINT8, T.UINT16, T.UINT32, T.UINT64}
Row = tuple[int, str]


def refused() -> dict[str, str]:
    """Name -> reason of every test that is refused."""
    lines = (HERE / "official_refusals.tsv").read_text(encoding="utf-8").splitlines()[1:]
    return dict(line.split("\t") for line in lines)


def tiers() -> dict[str, int]:
    """Operator -> tier."""
    lines = (HERE / "op_tiers.tsv").read_text(encoding="utf-8").splitlines()[1:]
    return {operator: int(tier) for operator, tier in (line.split("\t") for line in lines)}


def node_tests() -> Iterator[tuple[str, onnx.ModelProto]]:
    """Every node test of ONNX, but for expansions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some of ONNX's tests overflow while they are made
        from onnx.backend.test.case.node import collect_testcases

        cases = collect_testcases(None)
    return ((case.name + "_cpu", case.model) for case in cases if "expanded" not in case.name)


def row_of(model: onnx.ModelProto, tier: dict[str, int]) -> Row:
    """The tier of the rarest operator (4: in none), and the kind of element types."""
    used = max(tier.get(node.op_type, 4) if not node.domain else 4 for node in model.graph.node)
    entries = [*model.graph.input, *model.graph.output]
    kinds = {e.type.tensor_type.elem_type if e.type.HasField("tensor_type") else 0 for e in entries}
    return used, "float32" if kinds <= FLOAT32 else "standard" if kinds <= STANDARD else "other"


def counts() -> tuple[Counter[Row], dict[Row, list[str]]]:
    """How many tests there are of each row, and the names of those that are refused."""
    tier, refusals = tiers(), refused()
    total: Counter[Row] = Counter()
    names: dict[Row, list[str]] = {}
    for name, model in node_tests():
        row = row_of(model, tier)
        total[row] += 1
        names.setdefault(row, [])
        if name in refusals:
            names[row].append(name)
    return total, names


def main() -> None:
    """Print the table and, for tiers, why tests are refused."""
    total, names = counts()
    refusals = refused()
    print("tier  types     tests  passed")
    for row in sorted(total):
        tier, types = row
        print(f"{tier:4}  {types:8} {total[row]:6} {total[row] - len(names[row]):7}")
    why = Counter(
        refusals[n].split(" (")[0] for row in names if row[0] < 4 and row[1] != "other" for n in names[row]
    )
    print("\nrefused in tiers 1 to 3, standard types:")
    for reason, count in why.most_common():
        print(f"{count:4}  {reason}")


if __name__ == "__main__":
    main()
