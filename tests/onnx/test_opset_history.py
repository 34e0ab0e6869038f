"""Every version of every operator that models use most, since operator set 1, in the oldest that has it.

The table of forms is in opset_history: what each computes is said with NumPy. ONNX Runtime, which knows
operator sets from 7 on, must agree with that too. A version without a form fails.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cache

import numpy as np
import onnx
import opset_forms  # noqa: F401  (its rows and those of opset_windows fill the table)
import pytest
from onnx import helper, numpy_helper
from opset_history import FORMS, OPERATORS

from nnlite import onnx as nx
from nnlite.errors import NnliteError

OLDEST_OF_ONNXRUNTIME = 7
NEWEST_OF_ONNXRUNTIME = 26
"""It promises no more; it reads some newer ones, which are compared as well."""


@cache
def versions():
    """Operator -> since which operator sets it has had a version."""
    history = defaultdict(set)
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "" and schema.name in OPERATORS and not schema.deprecated:
            history[schema.name].add(schema.since_version)
    return {operator: sorted(history[operator]) for operator in OPERATORS}


def model_of(operator, form, opset, constant):
    """A model of one node; ``constant``: all operands but the first are in the file."""
    names = ["" if a is None else f"x{i}" for i, a in enumerate(form.inputs)]
    outputs = [f"y{i}" for i in range(form.outputs)]
    attributes = dict(form.attributes)
    schema = onnx.defs.get_schema(operator, opset, "")
    if "consumed_inputs" in schema.attributes:
        attributes["consumed_inputs"] = [0] * len(form.inputs)
    node = helper.make_node(operator, names, outputs, **attributes)
    given = {n: np.asarray(a) for n, a in zip(names, form.inputs, strict=True) if n}
    fixed = {n: a for n, a in given.items() if constant and n != "x0"}
    feeds = {n: a for n, a in given.items() if n not in fixed}
    listed = given if opset < 9 else feeds
    entries = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for n, a in listed.items()
    ]
    tensors = [numpy_helper.from_array(a, n) for n, a in fixed.items()]
    graph = helper.make_graph([node], "g", entries, [onnx.ValueInfoProto(name=n) for n in outputs], tensors)
    ir_version = (
        3 if opset < 9 else max(4, helper.find_min_ir_version_for([helper.make_opsetid("", opset)], True))
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version
    ), feeds


def typed(model, arrays):
    """The model with the outputs' types said, which ONNX Runtime wants."""
    for entry, array in zip(model.graph.output, arrays, strict=True):
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        entry.CopyFrom(helper.make_tensor_value_info(entry.name, kind, array.shape))
    return model


def agree(actual, expected, what):
    assert len(actual) == len(expected)
    for a, e in zip(actual, expected, strict=True):
        assert (a.shape, a.dtype) == (e.shape, e.dtype), what
        scale = max(1.0, float(np.abs(e).max(initial=0))) if e.dtype.kind == "f" else 0
        np.testing.assert_allclose(a, e, rtol=0, atol=2e-6 * scale, err_msg=what)


CASES = [
    pytest.param(operator, version, form, constant, id=f"{operator}-{version}-{i}{'-constant' * constant}")
    for operator, numbers in versions().items()
    for version in numbers
    for i, form in enumerate(FORMS[operator])
    if form.first <= version <= form.last
    for constant in (False, True)[: len(form.inputs) or 1]
]


@pytest.mark.parametrize(("operator", "version", "form", "constant"), CASES)
def test_every_version(operator, version, form, constant, run_ort):
    with np.errstate(all="ignore"):
        result = form.expected(*form.inputs, **form.attributes)
    expected = [np.asarray(a) for a in (result if isinstance(result, (tuple, list)) else [result])]
    if operator != "Cast" and any(np.asarray(a).dtype == np.float32 for a in form.inputs if a is not None):
        expected = [e.astype(np.float32) if e.dtype == np.float64 else e for e in expected]
    model, feeds = model_of(operator, form, version, constant)
    agree(nx.load(model).run(feeds), expected, "NumPy")
    if form.note or not OLDEST_OF_ONNXRUNTIME <= version <= NEWEST_OF_ONNXRUNTIME:
        return
    try:
        others = run_ort(typed(model, expected), feeds)
    except Exception as error:  # its own type is not public
        if "NOT_IMPLEMENTED" not in str(error):  # it finds the model wrong
            raise
    else:
        agree(nx.load(model).run(feeds), others, "ONNX Runtime")


def test_every_version_of_every_operator_has_a_form():
    missing = [
        f"{operator}-{version}"
        for operator, numbers in versions().items()
        for version in numbers
        if not any(form.first <= version <= form.last for form in FORMS[operator])
    ]
    assert not missing
    assert set(FORMS) == set(OPERATORS)
    assert all(versions()[operator] for operator in OPERATORS)


def test_every_form_is_said_in_some_version_and_so_is_every_attribute():
    """A form that no version knows is a mistake; so is an attribute that no form ever names."""
    said = {(case.values[0], id(case.values[2])) for case in CASES}
    assert {(operator, id(form)) for operator, forms in FORMS.items() for form in forms} == said
    unsaid = set()
    for operator in OPERATORS:
        for version in versions()[operator]:
            named = {"consumed_inputs"}
            for form in FORMS[operator]:
                named |= set(form.attributes)
            unsaid |= {
                f"{operator}.{name}" for name in onnx.defs.get_schema(operator, version).attributes
            } - {f"{operator}.{name}" for name in named}
    # Text is refused, in constants too; an output's type follows from what it is computed of.
    assert unsaid == {"Constant.value_string", "Constant.value_strings"}


def test_what_came_to_an_end_is_refused():
    """Upsample ended with operator set 9, and no form of its outlives its version."""
    model, _ = model_of("Upsample", FORMS["Upsample"][-1], 9, True)
    model.opset_import[0].version = 10
    with pytest.raises(NnliteError, match="no longer has this operator"):
        nx.load(model)
