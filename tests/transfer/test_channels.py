"""Networks of three channels take grey pictures and a fourth channel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from nnlite import onnx as nx
from nnlite.data import Preprocessing, Sample, decode
from nnlite.data.decode import decode_array
from nnlite.errors import ConfigError, ModelError
from nnlite.graph.stem import adapt_stem
from nnlite.transfer import Attributor, Classifier, FinetuneConfig, evaluate, finetune, predict

X = np.random.default_rng(0).integers(0, 256, (6, 5, 4), np.uint8)


def test_equal_channels_give_what_they_gave(mobilenet_path: Path) -> None:
    grey = np.random.default_rng(0).standard_normal((2, 1, 64, 64)).astype(np.float32)
    before = nx.load(mobilenet_path).run([np.repeat(grey, 3, 1)])[0]
    for channels in (1, 4):
        module = nx.load(mobilenet_path)
        adapt_stem(module, channels)
        after = module.run([np.repeat(grey, channels, 1)])[0]
        np.testing.assert_allclose(after, before, atol=1e-3)
        assert (module.input_sizes or ())[0][1] == channels
    with pytest.raises(ModelError, match="does not enter one convolution of 3 channels"):
        adapt_stem(module, 1)


@pytest.mark.parametrize("kind", ["L", "RGB", "RGBA"])
def test_decoding_channels(tmp_path: Path, kind: str) -> None:
    pixels = X[..., 0] if kind == "L" else X[..., : len(kind)]
    Image.fromarray(np.ascontiguousarray(pixels)).save(tmp_path / "a.png")
    colours = decode(tmp_path / "a.png")
    four = decode(tmp_path / "a.png", channels=4)
    one = decode(tmp_path / "a.png", channels=1)
    assert one.shape == (6, 5, 1)
    if kind == "RGBA":
        np.testing.assert_array_equal(four, X), "as they are, not laid on white"
    else:
        np.testing.assert_array_equal(four[..., :3], colours)
        assert (four[..., 3] == 255).all()
    if kind == "L":
        np.testing.assert_array_equal(one[..., 0], X[..., 0])
    else:
        luma = colours @ [0.299, 0.587, 0.114]
        assert np.abs(one[..., 0] - luma).max() <= 1
    for channels, expected in ((1, one), (3, colours), (4, four)):
        np.testing.assert_array_equal(decode_array(pixels, channels), expected)
        np.testing.assert_array_equal(Sample(tmp_path / "a.png").read(channels=channels), expected)


def test_normalisation_of_other_numbers_of_channels() -> None:
    rgb = Preprocessing.named("imagenet", 16)
    assert rgb.of_channels(3) is rgb
    assert rgb.of_channels(1).mean == pytest.approx((0.449,), abs=1e-3)
    four = rgb.of_channels(4)
    assert four.mean[:3] == rgb.mean
    assert four.planes == 4
    assert Preprocessing.from_json(four.to_json()) == four


@pytest.mark.parametrize("channels", ["1", "4"])
def test_from_end_to_end(
    mobilenet_path: Path,
    few_pictures: Path,
    tmp_path: Path,
    run_ort,
    channels: str,  # type: ignore[no-untyped-def]
) -> None:
    out = tmp_path / "tuned.onnx"
    options = dict(size=64, head_epochs=2, epochs=1, views=2, batch_size=8, baselines=False)
    config = FinetuneConfig(
        str(mobilenet_path), str(few_pictures), str(out), unfreeze="all", channels=channels, **options  # type: ignore[arg-type]
    )  # fmt: skip
    result = finetune(config)
    declared = onnx.load(out).graph.input[0].type.tensor_type.shape.dim[1].dim_value
    assert declared == int(channels)
    assert evaluate(out, few_pictures)["accuracy"] == result.metrics["accuracy"]
    classifier = Classifier.open(out)
    assert classifier.preprocessing.planes == int(channels)
    picture = next(iter((few_pictures / "val" / "bird").iterdir()))
    page = (result.run_dir / "report.html").read_text()
    cards = page.count('<figure class="card"')
    assert cards and page.count('alt="Occlusion') == page.count('alt="Grad-CAM') == cards
    assert f"[N, {channels}, 64, 64]" in page
    assert predict(classifier, [picture])
    x = classifier.preprocessing.evaluation()(decode(picture, channels=int(channels)))[None]
    logits = run_ort(out, [x])[0]
    np.testing.assert_allclose(logits, nx.load(out).run([x])[0], atol=1e-3)
    attributor = Attributor.open(out)
    for method in ("gradcam", "ig", "occlusion"):
        found = attributor.attribute(picture, method)
        assert found.picture.shape == found.overlay().shape == (64, 64, 3)
        assert found.values.any()
        pixels = decode(picture, channels=int(channels))
        np.testing.assert_array_equal(attributor.attribute(pixels, method).values, found.values)
    with pytest.raises(ConfigError, match=f"the model was tuned for {channels} channels"):
        finetune(FinetuneConfig(str(out), str(few_pictures), str(tmp_path / "b.onnx"), channels="3"))
