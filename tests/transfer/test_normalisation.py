"""A wrong normalisation is noticed, the right one is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nnlite import onnx as nx
from nnlite.data import Preprocessing, open_dataset
from nnlite.errors import ConfigError
from nnlite.graph import GraphModule
from nnlite.layout import Array
from nnlite.transfer import Callback, FinetuneConfig, finetune
from nnlite.transfer.normalisation import _surely_less, _variance, doubt, jensen_shannon, some_pictures


@pytest.fixture(scope="module")
def shown(clipart: Path) -> list[Array]:
    return some_pictures(open_dataset(clipart), None)


@pytest.fixture(scope="module")
def mobilenet(mobilenet_path: Path) -> GraphModule:
    return nx.load(mobilenet_path)


@pytest.mark.parametrize("size", [96, 224])
@pytest.mark.parametrize(
    ("family", "said"),
    [("imagenet", None), ("lite", "0.3"), ("unit", "0.0"), ("raw255", "e+03"), ("caffe_bgr", "e+03")],
)
def test_variances_tell_where_there_is_batch_normalisation(
    mobilenet: GraphModule, shown: list[Array], size: int, family: str, said: str | None
) -> None:
    found = doubt(mobilenet, Preprocessing.named(family, size, crop=1.0), shown)
    if said is None:
        assert found is None
    else:
        assert found is not None
        assert found.endswith("try --preprocessing imagenet")
        assert "times as much as in training" in found


def test_the_variance_of_all_pictures_and_of_a_constant_channel() -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (20, 24, 3), np.uint8) for _ in range(5)]
    how = Preprocessing.named("imagenet", 16)
    constant = np.array([1.3, 0.3, 0.1], np.float32)[:, None, None]

    def stem(x: Array) -> Array:
        return np.concatenate([5 + 3 * x, np.broadcast_to(constant, x.shape)], axis=1).astype(np.float32)

    seen = np.concatenate([stem(how.evaluation()(one)[None]) for one in pictures])
    found = _variance(stem, how, pictures)
    np.testing.assert_allclose(found[:3], seen[:, :3].var((0, 2, 3), np.float64), rtol=1e-6)
    assert ((found[3:] >= 0) & (found[3:] < 1e-8)).all()


def test_saturation_tells_where_it_is_folded(assets: Path, shown: list[Array]) -> None:
    network = nx.load(assets / "models" / "efficientnet_lite0.onnx")
    assert doubt(network, Preprocessing.named("lite", 224, crop=1.0), shown) is None
    found = doubt(network, Preprocessing.named("imagenet", 224, crop=1.0), shown)
    assert found is not None
    assert "lite" in found
    assert "of the first activations are at their upper bound" in found


def test_what_is_surely_less() -> None:
    own = np.linspace(0.01, 0.05, 30)
    assert _surely_less(own / 2, own)
    assert not _surely_less(own * 0.9, own), "not by much"
    few = own.copy()
    few[-1] = 1e-6
    assert not _surely_less(few, own), "one picture decides nothing"


def test_divergence_by_hand() -> None:
    p, q = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    assert jensen_shannon(p, q) == pytest.approx(np.log(2))
    assert jensen_shannon(p, p).tolist() == [0]
    half = np.array([[0.5, 0.5]])
    by_hand = (np.log(1 / 0.75) + 0.5 * np.log(0.5 / 0.75) + 0.5 * np.log(0.5 / 0.25)) / 2
    assert jensen_shannon(p, half) == pytest.approx(by_hand)


def test_a_run_warns(mobilenet_path: Path, few_pictures: Path, tmp_path: Path) -> None:
    class Heard(Callback):
        def __init__(self) -> None:
            self.lines: list[str] = []

        def on_message(self, text: str) -> None:
            self.lines.append(text)

    def lines(preprocessing: str) -> list[str]:
        heard = Heard()
        config = FinetuneConfig(
            str(mobilenet_path), str(few_pictures), str(tmp_path / "tuned.onnx"), size=64, epochs=0,
            head_epochs=1, views=1, baselines=False, preprocessing=preprocessing,
        )  # fmt: skip
        finetune(config, callbacks=[heard])
        return [line for line in heard.lines if line.startswith("warning")]

    (warning,) = lines("unit")
    assert warning.startswith("warning: the normalisation looks wrong")
    assert lines("imagenet") == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lite,crop=0.875, filter=bicubic", Preprocessing.named("lite", 32, crop=0.875, filter="bicubic")),
        ("mean=1/2/3,std=4,scale=1,channels=BGR",
         Preprocessing((32, 32), (1, 2, 3), (4, 4, 4), 1.0, "BGR", crop=1.0)),
    ],
)  # fmt: skip
def test_preprocessing_may_be_told_in_full(text: str, expected: Preprocessing) -> None:
    assert Preprocessing.told(text, 32) == expected


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("mean=a", "'mean=a' needs numbers"),
        ("lite,blur=3", "'blur=3' is none of mean, std"),
        ("std=0", "std=.* must be positive"),
        ("mean=1/2", "mean=.* must be 3 numbers"),
        ("best,crop=1", "no family 'best'"),
    ],
)
def test_preprocessing_that_is_told_wrongly(text: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        Preprocessing.told(text, 32)
    with pytest.raises(ConfigError):
        FinetuneConfig("m.onnx", "data", preprocessing=text)
