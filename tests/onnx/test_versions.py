"""Every operator that is read x every version of it since operator set 7, against ONNX Runtime.

The cases are ONNX's own node tests, said in the older operator set wherever its schema allows the same
form. Forms that only old operator sets know have tests of their own (test_reader, test_structure).
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from functools import cache

import numpy as np
import onnx
import pytest
from onnx import helper

from nnlite import onnx as nx
from nnlite.errors import NnliteError
from nnlite.onnx.reader import supported_operators
from nnlite.ops.storage import is_storage

OLDEST = 7
"""ONNX Runtime promises nothing for operator sets before."""


@cache
def cases():
    """Operator -> models of one such node, with inputs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests
        from onnx.backend.test.runner import _normalize_tensor

        found = defaultdict(list)
        for case in load_model_tests(kind="node"):
            nodes = case.model.graph.node if case.model is not None else ()
            if len(nodes) == 1 and nodes[0].domain == "" and case.data_sets:
                inputs = [_normalize_tensor(item) for item in case.data_sets[0][0]]
                if all(isinstance(a, np.ndarray) and a.dtype.kind in "fiub" for a in inputs):
                    found[nodes[0].op_type].append((case.name, case.model, inputs))
        return found


def versions():
    history = defaultdict(set)
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "" and not schema.deprecated:
            history[schema.name].add(schema.since_version)
    for operator in sorted(supported_operators()):
        numbers = sorted(history[operator])
        for first, following in zip(numbers, [*numbers[1:], onnx.defs.onnx_opset_version() + 1], strict=True):
            # The last operator set that has this version, unless that is too old to be compared.
            if following - 1 >= OLDEST:
                yield operator, first, following - 1


def dated(model, opset):
    """``model`` in another operator set; None where its form is not known there."""
    old = onnx.ModelProto()
    old.CopyFrom(model)
    del old.opset_import[:]
    old.opset_import.append(helper.make_opsetid("", opset))
    old.ir_version = min(8, helper.find_min_ir_version_for(old.opset_import, ignore_unknown=True))
    old.ir_version = max(old.ir_version, 4)
    try:
        onnx.checker.check_model(old, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return None
    return old


VERSIONS = [pytest.param(*entry, id=f"{entry[0]}-{entry[1]}") for entry in versions()]


@pytest.mark.parametrize(("operator", "version", "opset"), VERSIONS)
def test_every_version_of_every_operator(operator, version, opset, run_ort):
    compared = 0
    for name, model, inputs in cases().get(operator, ()):
        old = dated(model, opset)
        if old is None:
            continue
        try:
            expected = run_ort(old, inputs)
        except Exception:  # its own type is not public: it knows no such type or version
            continue
        if not all(isinstance(e, np.ndarray) and e.dtype.kind in "fiub" for e in expected):
            continue
        if any(a.dtype == np.float16 for a in (*inputs, *expected)):
            continue  # computed in single precision: ONNX's own tests are less strict
        try:
            actual = nx.load(old).run(inputs)
        except NnliteError:
            continue  # which of them are refused is listed in official_refusals.tsv
        for a, e in zip(actual, expected, strict=True):
            if is_storage(a.dtype) and e.dtype == np.uint8:
                a = a.view(np.uint8)  # ONNX Runtime hands out the bits
            assert (a.shape, a.dtype) == (e.shape, e.dtype), name
            scale = max(1.0, float(np.abs(e[np.isfinite(e)]).max(initial=0))) if e.dtype.kind == "f" else 1
            np.testing.assert_allclose(a, e, rtol=0, atol=1e-5 * scale, err_msg=name)
        compared += 1
    if not compared:
        pytest.skip("no test of ONNX's says this version, or ONNX Runtime does not know it")
