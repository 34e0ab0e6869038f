"""The table of schemas against onnx's own, and messages without its package."""

from __future__ import annotations

import subprocess
import sys

import onnx
import pytest
from onnx import TensorProto, helper

from nnlite.onnx import schemas
from nnlite.onnx.schemas import Formal, newest_opset, schema
from nnlite.ops.element_types import code_named, code_of, dtype_of, name_of

OWN = [one for one in onnx.defs.get_all_schemas_with_history() if not one.domain]
NAMES = sorted({one.name for one in OWN})


TABLE = schemas.TABLE.read_text("ascii").splitlines()
same_version = pytest.mark.skipif(
    not TABLE[0].endswith(f" {onnx.__version__}"),
    reason=f"onnx {onnx.__version__} is not the one that the table is from: make schemas",
)


@same_version
def test_the_table_is_what_onnx_writes():
    assert list(schemas.lines()) == TABLE


@same_version
@pytest.mark.parametrize("name", NAMES)
def test_every_operator_in_every_set(name):
    for opset in range(1, min(newest_opset(), onnx.defs.onnx_opset_version()) + 1):
        try:
            expected = onnx.defs.get_schema(name, opset, "")
        except onnx.defs.SchemaError:
            with pytest.raises(KeyError):
                schema(name, opset)
            continue
        found = schema(name, opset)
        assert (found.since, found.deprecated) == (expected.since_version, bool(expected.deprecated))
        assert found.input_counts == (expected.min_input, expected.max_input)
        assert found.output_counts == (expected.min_output, expected.max_output)
        assert found.attributes == {
            key: (one.type.name, bool(one.required)) for key, one in expected.attributes.items()
        }
        allowed = {c.type_param_str: c.allowed_type_strs for c in expected.type_constraints}
        for mine, theirs in ((found.inputs, expected.inputs), (found.outputs, expected.outputs)):
            assert [one.name for one in mine] == [one.name for one in theirs]
            for one, other in zip(mine, theirs, strict=True):
                kinds = {f"tensor({kind})" if "(" not in kind else kind for kind in one.types}
                stated = {text.replace(" ", "") for text in allowed.get(other.type_str, [other.type_str])}
                assert kinds == stated
                assert one.kind == {"Optional": "?", "Variadic": "*"}.get(other.option.name, "")
                assert one.homogeneous == bool(other.is_homogeneous)


def test_formals_of_one_letter_share_a_type():
    left, right, condition = (
        schema("Where", 16).inputs[1],
        schema("Where", 16).inputs[2],
        schema("Where", 16).inputs[0],
    )
    assert left.variable == right.variable != condition.variable
    assert condition == Formal("condition", "B", frozenset({"bool"}), "")


def test_what_the_table_has_not_is_asked_of_onnx(monkeypatch):
    types = schemas._table()[1]
    monkeypatch.setattr(schemas, "_table", lambda: (12, types, {}))
    schema.cache_clear()
    try:
        assert schema("Conv", 17) == schemas._of_onnx(onnx.defs.get_schema("Conv", 17, ""))
        assert newest_opset() == 12
        assert newest_opset(13) == onnx.defs.onnx_opset_version()
    finally:
        schema.cache_clear()


@pytest.mark.parametrize(("name", "code"), TensorProto.DataType.items())
def test_element_types_are_onnx_s(name, code):
    if code > 26 or code == 0:
        assert name_of(code) is None  # of 6 bits, and none at all: not read
        return
    assert (name_of(code), code_named(name)) == (name, code)
    assert dtype_of(code) == helper.tensor_dtype_to_np_dtype(code)
    assert code_of(dtype_of(code)) == helper.np_dtype_to_tensor_dtype(dtype_of(code))


@pytest.mark.parametrize("first", ["nnlite.onnx.proto", "onnx"])
def test_messages_are_onnx_s_own_whoever_asks_first(first):
    code = (
        f"import {first}; from nnlite.onnx import proto; import onnx\n"
        "assert all(getattr(proto, name) is getattr(onnx, name) for name in proto.__all__)\n"
        "assert onnx.helper.make_node('Relu', ['x'], ['y']).op_type == 'Relu'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_model_is_read_and_written_without_onnx_s_package(mobilenet_path, tmp_path):
    code = (
        "import sys, numpy as np\n"
        "from nnlite.onnx import load, save\n"
        f"module = load({str(mobilenet_path)!r})\n"
        "name, weight = next(iter(module.named_parameters()))\n"
        "weight.assign(weight.numpy() + np.float32(1))\n"
        f"save(module, {str(tmp_path / 'changed.onnx')!r})\n"
        "assert 'onnx' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    onnx.checker.check_model(str(tmp_path / "changed.onnx"), full_check=True)
