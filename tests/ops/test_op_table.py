"""Every op x every sample: types, precision, gradients, errors, memory orders.

A new op is tested by being registered.
"""

from __future__ import annotations

import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest
from op_samples import (
    CASES,
    DIFFERENTIABLE,
    ERRORS,
    assert_close,
    differentiable,
    gradients,
    output_gradient,
    run,
)

import nnlite as nl
from nnlite.errors import GradientError
from nnlite.ops import OPS, ArrayType, Op, Sample
from nnlite.tensors import Tensor, apply_many
from nnlite.testing import gradcheck


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("op", "sample"), CASES)
def test_outputs_are_what_the_shape_rule_says(op, sample, dtype):
    arrays = sample.arrays(dtype=dtype)
    types = [None if a is None else ArrayType(a.shape, a.dtype) for a in arrays]
    expected = op.output_types(types, sample.params)
    outputs = apply_many(op, *[None if a is None else Tensor(a) for a in arrays], **sample.params)
    for y, (shape, dtype) in zip(outputs, expected, strict=True):
        known = tuple(-1 if wanted == -1 else size for size, wanted in zip(y.shape, shape, strict=True))
        assert (known, y.dtype) == (shape, dtype)
    assert all(type(y._array) is np.ndarray for y in outputs)


@pytest.mark.parametrize(("op", "sample"), CASES)
def test_float32_is_close_to_float64(op, sample):
    single = sample.arrays(dtype=np.float32)
    double = [a.astype(np.float64) if a is not None and a.dtype == np.float32 else a for a in single]
    for y, exact in zip(run(op, single, sample.params), run(op, double, sample.params), strict=True):
        assert_close(y.numpy(), exact.numpy(), 2e-6)


@pytest.mark.parametrize(("op", "sample"), DIFFERENTIABLE)
def test_gradient_equals_differences(op, sample):
    arrays = sample.arrays()
    wanted = differentiable(op, arrays)
    inputs = [Tensor(arrays[i], requires_grad=True) for i in wanted]

    def function(*tensors: Tensor) -> Tensor:
        operands = list(arrays)
        for i, tensor in zip(wanted, tensors, strict=True):
            operands[i] = tensor
        return run(op, operands, sample.params)[0]

    gradcheck(function, inputs)


@pytest.mark.parametrize(("op", "sample"), DIFFERENTIABLE)
def test_only_wanted_gradients_are_computed_and_they_do_not_depend_on_which(op, sample):
    arrays, gy = sample.arrays(), output_gradient(op, sample)
    inputs = differentiable(op, arrays)
    complete = gradients(op, arrays, sample.params, gy, set(inputs))
    assert len(complete) == len(arrays)
    for count in range(1, len(inputs) + 1):
        for wanted in combinations(inputs, count):
            found = gradients(op, arrays, sample.params, gy, set(wanted))
            assert [i for i, gradient in enumerate(found) if gradient is not None] == list(wanted)
            for i in wanted:
                np.testing.assert_array_equal(found[i], complete[i])


@pytest.mark.parametrize(("op", "sample"), DIFFERENTIABLE)
def test_gradients_have_the_types_of_their_inputs(op, sample):
    arrays, gy = sample.arrays(dtype=np.float32), output_gradient(op, sample, np.float32)
    wanted = differentiable(op, arrays)
    leaves = [Tensor(a, requires_grad=i in wanted) if a is not None else None for i, a in enumerate(arrays)]
    y = run(op, leaves, sample.params)[0]
    y.backward(gy)
    for i in wanted:
        gradient = leaves[i]._value.grad
        assert type(gradient) is np.ndarray
        assert (gradient.shape, gradient.dtype) == (arrays[i].shape, arrays[i].dtype)


def _sliced(array: np.ndarray) -> np.ndarray:
    """The same elements as every second one of a larger array."""
    if not array.ndim:
        return array
    between = 1 if array.dtype.kind in "iu" else np.nan
    wide = np.full((*array.shape[:-1], 2 * array.shape[-1]), between, array.dtype)
    wide[..., ::2] = array
    return wide[..., ::2]


ORDERS = {
    "channels_last": lambda a: nl.layout.channels_last(a) if a.ndim > 2 else a,
    "sliced": _sliced,
    "transposed": lambda a: np.ascontiguousarray(a.T).T if a.ndim else a,
    "reversed": lambda a: np.ascontiguousarray(a[::-1])[::-1] if a.ndim else a,
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("op", "sample"), CASES)
def test_memory_order_changes_nothing(op, sample, order):
    arrays = sample.arrays()
    reordered = [None if a is None else ORDERS[order](a) for a in arrays]
    for y, expected in zip(run(op, reordered, sample.params), run(op, arrays, sample.params), strict=True):
        assert_close(y.numpy(), expected.numpy(), 1e-13)
    if op.backward is None or not sample.gradcheck:
        return
    gy, wanted = output_gradient(op, sample), set(differentiable(op, arrays))
    found = gradients(op, reordered, sample.params, ORDERS[order](gy), wanted)
    for gradient, expected in zip(found, gradients(op, arrays, sample.params, gy, wanted), strict=True):
        if expected is not None:
            assert_close(gradient, expected, 1e-13)


def _sealed(array: np.ndarray | None) -> np.ndarray | None:
    if array is not None:
        array.flags.writeable = False
    return array


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("op", "sample"), CASES)
def test_operands_and_gradients_are_never_written(op, sample, dtype):
    arrays = [_sealed(a) for a in sample.arrays(dtype=dtype)]
    expected = run(op, sample.arrays(dtype=dtype), sample.params)
    for y, same in zip(run(op, arrays, sample.params), expected, strict=True):
        np.testing.assert_array_equal(y.numpy(), same.numpy())
    if op.backward is not None and sample.gradcheck:
        gy = _sealed(output_gradient(op, sample, dtype))
        found = gradients(op, arrays, sample.params, gy, set(differentiable(op, arrays)))
        assert any(gradient is not None for gradient in found)


@pytest.mark.parametrize(("op", "sample"), DIFFERENTIABLE)
def test_going_back_twice_is_an_error(op, sample):
    arrays, gy = sample.arrays(), output_gradient(op, sample)
    wanted = differentiable(op, arrays)
    leaves = [Tensor(a, i in wanted) if a is not None else None for i, a in enumerate(arrays)]
    y = run(op, leaves, sample.params)[0]
    y.backward(gy, retain_graph=True)
    y.backward(gy)
    with pytest.raises(GradientError, match=rf"{op.name}.*retain_graph=True"):
        y.backward(gy)


@pytest.mark.parametrize(("op", "error"), ERRORS)
def test_every_error_says_what_is_wrong(op, error):
    arrays = error.sample.arrays()
    operands = [None if a is None else nl.asarray(a) for a in arrays]
    with pytest.raises(error.error, match=error.match) as raised:
        apply_many(op, *operands, **error.sample.params)
    assert str(raised.value).startswith(op.name), "a message begins with the op's name"


# --------------------------------------------------------------------------------- the registry


def _record(**changes):
    relu = OPS["relu"]
    fields = ("formula", "gradient", "shape", "forward", "backward", "samples", "errors", "writes")
    return Op(**{"name": "test_only", **{name: getattr(relu, name) for name in fields}, **changes})


@pytest.mark.parametrize("op", OPS.values(), ids=lambda op: op.name)
def test_every_record_says_what_it_is_tested_with(op):
    # Not asked when it registers: making them would be a part of every start.
    assert any(True for _ in op.samples())
    assert any(True for _ in op.errors())


@pytest.mark.parametrize("part", [{"name": ""}, {"formula": ""}, {"gradient": ""}])
def test_an_incomplete_record_does_not_register(part):
    with pytest.raises(ValueError, match=f"lacks {next(iter(part))}"):
        nl.ops.register(_record(**part))
    assert "test_only" not in OPS
    assert "" not in OPS


def test_a_name_and_an_onnx_operator_belong_to_one_record():
    with pytest.raises(ValueError, match="registered twice"):
        nl.ops.register(_record(name="relu"))
    with pytest.raises(ValueError, match="Relu is read by relu already"):
        nl.ops.register(_record(reads=OPS["relu"].reads))
    assert "test_only" not in OPS, "a refused record leaves nothing behind"


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_records_name_kernels_that_exist_and_cite_a_source(op):
    assert set(op.kernels) <= set(nl.kernels.SPECS)
    assert op.source


def test_samples_are_drawn_anew_and_repeatably():
    sample = Sample((2, 3), None, np.array([1, 2]))
    first, again, other = sample.arrays(0), sample.arrays(0), sample.arrays(1)
    np.testing.assert_array_equal(first[0], again[0])
    assert not np.array_equal(first[0], other[0])
    assert first[1] is None
    assert first[2].dtype == np.int64


def test_element_types_are_known_by_their_names_alone():
    # In a process of its own: the package that has the small ones may be imported here.
    code = (
        "import nnlite as nl\n"
        "x = nl.tensor([1.5, 300.0])\n"
        "assert x.astype('bfloat16').numpy().astype(float).tolist() == [1.5, 300.0]\n"
        "assert x.astype('int4').numpy().astype(int).tolist()[0] == 1\n"
        "try: x.astype('float17')\n"
        "except nl.errors.DTypeError as error: assert 'float17' in str(error)\n"
        "else: raise SystemExit(1)"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
