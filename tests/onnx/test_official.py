"""ONNX's own backend tests, every one of them: passed, or refused for the reason that is listed.

The list, official_refusals.tsv, is strict both ways: what is listed and passes fails here, and so does
what is refused for another reason. NNLITE_UPDATE_OFFICIAL=1 writes it anew.
"""

from __future__ import annotations

import os
import warnings
from functools import cache
from pathlib import Path

import official_counts
import onnx
import pytest

from nnlite.errors import ModelError, NnliteError
from nnlite.onnx.backend import NnliteBackend

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # some of ONNX's tests overflow while they are made
    from onnx.backend.test import BackendTest

    RUNNER = BackendTest(NnliteBackend, __name__)

LISTED = Path(__file__).with_name("official_refusals.tsv")
UPDATE = bool(os.environ.get("NNLITE_UPDATE_OFFICIAL"))
DIFFERS = {
    "test_attention_4d_causal_fp16_cpu": "half precision is computed in single precision",
    "test_attention_4d_causal_fp16_expanded_cpu": "as above",
    "test_loop16_seq_none_cpu": "ONNX's runner cannot compare numbers in a sequence; test_control does",
    "test_maxunpool_export_with_output_shape_cpu": "indices count through the output that is asked for, as "
    "in ONNX Runtime and PyTorch; ONNX's test counts through a smaller one",
    "test_resize_downsample_scales_cubic_align_corners_cpu": "the length of the result is a whole number, as "
    "in ONNX Runtime and PyTorch; ONNX's test takes 2.4 elements",
    "test_resize_downsample_scales_linear_align_corners_cpu": "as above",
}
"""Where the answer differs from ONNX's, and why."""


def items():
    """Name -> test function of every test on the CPU, the light versions of real models among them."""
    found = {}
    for case in RUNNER.test_cases.values():
        for name in dir(case):
            if name.startswith("test_") and name.endswith("_cpu"):
                found[name] = getattr(case, name)
    return found


ITEMS = items()


@cache
def listed():
    """The version of ONNX that the list was made with, and name -> reason."""
    if not LISTED.exists():
        return "", {}
    version, *lines = LISTED.read_text(encoding="utf-8").splitlines()
    return version, dict(line.split("\t") for line in lines)


def reason_of(error):
    """The first reason that a message gives, on one line."""
    lines = str(error).splitlines()
    text = lines[1] if len(lines) > 1 and lines[0].endswith("nodes are not supported:") else lines[0]
    return text.strip().replace("\t", " ")


@pytest.fixture(autouse=True)
def _light_models_are_unpacked_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("ONNX_MODELS", str(tmp_path))


NEW = {}


@pytest.fixture(scope="module", autouse=True)
def _write_the_list_when_asked():
    yield
    if UPDATE:
        lines = [onnx.__version__, *(f"{name}\t{reason}" for name, reason in sorted(NEW.items()))]
        LISTED.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ITEMS)
def test_official(name):
    version, refusals = listed()
    try:
        ITEMS[name](None)
    except NnliteError as error:
        NEW[name] = reason_of(error)
        if UPDATE:
            return
        if version != onnx.__version__ and name not in refusals:
            pytest.skip(f"refused, and the list of refusals was made with ONNX {version}: {NEW[name]}")
        assert name in refusals, NEW[name]
        if version == onnx.__version__:
            assert NEW[name] == refusals[name]
    except (AssertionError, TypeError):
        if name not in DIFFERS:
            raise
    else:
        assert name not in refusals or UPDATE, f"passes, but is listed as refused: {refusals[name]}"
        assert name not in DIFFERS, "passes, but is listed as different"


def test_every_listed_name_exists():
    version, refusals = listed()
    if version == onnx.__version__:
        assert set(refusals) <= set(ITEMS)
        assert set(DIFFERS) <= set(ITEMS)


def test_nothing_in_float32_that_vision_models_use_is_refused():
    version, _ = listed()
    if version != onnx.__version__:
        pytest.skip(f"the list of refusals was made with ONNX {version}")
    total, names = official_counts.counts()
    common = [row for row in total if row[0] <= 2 and row[1] == "float32"]
    assert sum(total[row] for row in common) > 500
    assert [name for row in common for name in names[row]] == []


def test_the_backends_own_interface(onnx_model, normal):
    from nnlite.onnx import backend

    node = onnx.helper.make_node("Add", ["a", "b"], ["y"])
    a, b = normal(2, 3), normal(2, 3, seed=1)
    (y,) = backend.run_node(node, [a, b])
    assert (y == a + b).all()
    model = onnx_model([("Add", ["a", "b"], ["y"])], {"a": [2, 3], "b": [2, 3]}, ["y"])
    assert (backend.run_model(model, [a, b])[0] == y).all()
    assert (backend.prepare(model).run({"a": a, "b": b}).y == y).all()
    assert backend.supports_device("CPU")
    assert not backend.supports_device("CUDA")
    with pytest.raises(ModelError, match="device 'CUDA' is not supported"):
        backend.prepare(model, "CUDA")
