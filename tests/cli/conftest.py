"""The real entry point in this process, a few drawings, and a model that is quick to tune."""

from __future__ import annotations

import json
import shutil
import sys

import onnx
import pytest

from nnlite import cli


@pytest.fixture
def run(monkeypatch, capsys):
    """``run("eval", model, data)``: exit status, standard output and errors of the real entry point."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["nnlite", *map(str, arguments)])
        try:
            cli.main()
            status = 0
        except SystemExit as stop:
            status = stop.code or 0
        out, errors = capsys.readouterr()
        return status, out, errors

    return call


@pytest.fixture(scope="module")
def pictures(clipart, tmp_path_factory):
    """Four training and two held-out drawings of two classes."""
    root = tmp_path_factory.mktemp("two")
    for part, count in (("train", 4), ("val", 2)):
        for name in ("bird", "plant"):
            (root / part / name).mkdir(parents=True)
            for picture in sorted((clipart / part / name).iterdir())[:count]:
                shutil.copy(picture, root / part / name)
    return root


@pytest.fixture(scope="module")
def small(onnx_model, normal, tmp_path_factory):
    """A classifier of two named classes that costs nothing."""
    nodes = [
        ("Conv", ["x", "w"], ["c"], dict(strides=[4, 4])), ("Relu", ["c"], ["r"]),
        ("GlobalAveragePool", ["r"], ["p"]), ("Flatten", ["p"], ["f"]),
        ("Gemm", ["f", "v"], ["y"], dict(transB=1)),
    ]  # fmt: skip
    metadata = {"nnlite.classes": json.dumps(["bird", "plant"])}
    arrays = {"w": normal(8, 3, 4, 4), "v": normal(2, 8)}
    path = tmp_path_factory.mktemp("small") / "small.onnx"
    sizes = {"x": ["N", 3, None, None]}, {"y": ["N", 2]}
    onnx.save(onnx_model(nodes, *sizes, arrays, metadata=metadata), path)
    return path
