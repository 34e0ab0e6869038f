"""ImageClassifier: learning from arrays and paths, files, copies, and scikit-learn's own tools."""

from __future__ import annotations

import copy
import pickle
from dataclasses import fields

import numpy as np
import onnx
import pytest
from PIL import Image

from nnlite.errors import ConfigError, DataError, DTypeError, ModelError, ShapeError
from nnlite.transfer import Classifier, FinetuneConfig, ImageClassifier
from nnlite.transfer.estimator import ESTIMATOR_KEY, OWN, NotFittedError

QUICK = dict(
    unfreeze="none", head_epochs=12, head_learning_rate=0.3, weight_decay=0.0, views=1, size=16, workers=0,
    preprocessing="unit",
)  # fmt: skip


@pytest.fixture(scope="module")
def model(onnx_model, tmp_path_factory):
    """Mean colours, and a layer on them that knows nothing yet."""
    nodes = [
        ("Conv", ["x", "w"], ["a"]), ("GlobalAveragePool", ["a"], ["p"]), ("Flatten", ["p"], ["f"]),
        ("Gemm", ["f", "v", "b"], ["y"], dict(transB=1)),
    ]  # fmt: skip
    arrays = {"w": np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1), "v": np.zeros((2, 3), np.float32)}
    arrays["b"] = np.zeros(2, np.float32)
    path = tmp_path_factory.mktemp("model") / "colours.onnx"
    onnx.save(onnx_model(nodes, {"x": ["N", 3, None, None]}, {"y": ["N", 2]}, arrays), path)
    return str(path)


def pictures(count, seed=0):
    """Noise in which one colour is stronger, and which: uint8 [N,20,16,3], [N]."""
    rng = np.random.default_rng(seed)
    y = np.arange(count) % 3
    x = rng.integers(0, 120, (count, 20, 16, 3)).astype(np.uint8)
    x[np.arange(count), :, :, y] += 90
    return x, y


@pytest.fixture(scope="module")
def fitted(model):
    x, y = pictures(30)
    return ImageClassifier(model, **QUICK).fit(x, np.array([10, 9, 200])[y])


def test_it_learns_and_keeps_the_labels_as_they_were(fitted):
    x, y = pictures(12, seed=1)
    np.testing.assert_array_equal(fitted.classes_, [9, 10, 200])
    labels = np.array([10, 9, 200])[y]
    predicted = fitted.predict(x)
    assert predicted.dtype == fitted.classes_.dtype
    np.testing.assert_array_equal(predicted, labels)
    assert fitted.score(x, labels) == 1
    p = fitted.predict_proba(x)
    assert p.shape == (12, 3)
    np.testing.assert_allclose(p.sum(1), 1)
    np.testing.assert_array_equal(fitted.classes_[p.argmax(1)], labels)
    assert len(fitted.history_) == 12 and fitted.metrics_["pictures"] == 3, "a tenth of every class held out"


def test_scores_may_be_weighted(fitted):
    x, y = pictures(6, seed=1)
    labels = np.array([10, 9, 200])[y]
    labels[0] = 9  # a label that is wrong
    assert fitted.score(x, labels) == pytest.approx(5 / 6)
    assert fitted.score(x, labels, sample_weight=[5, 1, 1, 1, 1, 1]) == pytest.approx(0.5)


def test_paths_texts_and_grey_pictures(model, tmp_path):
    x, y = pictures(18)
    names = np.array(["a;b", 'c,"d"', "é"])[y]
    paths = []
    for n, picture in enumerate(x):
        (tmp_path / f"part,{n % 2}").mkdir(exist_ok=True)
        paths.append(tmp_path / f"part,{n % 2}" / f"{n} '.png")
        Image.fromarray(picture).save(paths[-1])
    by_path = ImageClassifier(model, **QUICK).fit(paths, names)
    by_array = ImageClassifier(model, **QUICK).fit(x, names)
    np.testing.assert_allclose(by_path.predict_proba(paths), by_array.predict_proba(x), atol=1e-6)
    assert by_path.score([str(path) for path in paths], names) == 1
    odd = np.arange(8) % 2 == 1
    grey = np.where(odd[:, None, None], 200, 30) * np.ones((8, 9, 9))
    grey = grey.astype(np.uint8)
    small = ImageClassifier(model, **{**QUICK, "head_epochs": 100}).fit(grey, odd)
    assert small.classes_.dtype == bool and small.score(grey, odd) == 1


def test_files(fitted, tmp_path):
    x, _ = pictures(6, seed=2)
    fitted.save(tmp_path / "tuned.onnx")
    again = ImageClassifier.load(tmp_path / "tuned.onnx")
    np.testing.assert_array_equal(again.predict_proba(x), fitted.predict_proba(x))
    np.testing.assert_array_equal(again.predict(x), fitted.predict(x))
    assert again.get_params() == fitted.get_params()
    assert Classifier.open(tmp_path / "tuned.onnx").classes == ("9", "10", "200")


def test_files_of_others(model, tmp_path, fitted):
    with pytest.raises(ModelError, match=r"was not written by ImageClassifier\.save"):
        ImageClassifier.load(model)
    fitted.save(tmp_path / "tuned.onnx")
    for text, match in (("{", "is damaged"), ('{"model": 1}', "is damaged"), (None, "names other classes")):
        proto = onnx.load(tmp_path / "tuned.onnx")
        entry = next(e for e in proto.metadata_props if e.key == ESTIMATOR_KEY)
        entry.value = entry.value.replace("200", "300") if text is None else text
        onnx.save(proto, tmp_path / "other.onnx")
        with pytest.raises(ModelError, match=match):
            ImageClassifier.load(tmp_path / "other.onnx")


def test_copies_carry_the_model(fitted):
    x, _ = pictures(4, seed=3)
    expected = fitted.predict_proba(x)
    for again in (copy.deepcopy(fitted), pickle.loads(pickle.dumps(fitted))):
        np.testing.assert_array_equal(again.predict_proba(x), expected)


def test_parameters(model):
    one = ImageClassifier(model, epochs=3)
    assert one.epochs == 3 and one.validation == 0.1 and one.report is False
    assert one.get_params()["epochs"] == 3
    assert set(one.get_params()) == {f.name for f in fields(FinetuneConfig)} - set(OWN) | {"model"}
    assert one.set_params(epochs=4, seed=7) is one and (one.epochs, one.seed) == (4, 7)
    assert repr(one) == f"ImageClassifier({model!r}, epochs=4, seed=7)"
    with pytest.raises(ConfigError, match=r"no option 'epoch'; known are .*epochs"):
        ImageClassifier(model, epoch=3)
    with pytest.raises(ConfigError, match="no option 'data'"):
        one.set_params(data="x")


def test_what_cannot_be_fitted(model):
    x, y = pictures(6)
    new = ImageClassifier(model, **QUICK)
    with pytest.raises(NotFittedError, match="call fit first") as error:
        new.predict(x)
    assert isinstance(error.value, ValueError) and isinstance(error.value, AttributeError)
    for pictures_, labels, kind, match in (
        (x, y[:5], ShapeError, r"y has shape \[5\] but X holds 6"),
        (x.astype(np.float32), y, DTypeError, "X is float32"),
        (x[:, :, 0, 0], y, ShapeError, r"must be \[N,H,W,C\]"),
        ("folder", y, DTypeError, "a sequence of paths"),
        ([], [], DTypeError, "not empty"),
        ([1, 2], [0, 1], DTypeError, "X holds int"),
        (x, np.zeros(6), DataError, "at least two classes"),
        (x, np.array([1, "1"] * 3, object), DataError, "cannot be put in order"),
    ):
        with pytest.raises(kind, match=match):
            new.fit(pictures_, labels)
    with pytest.raises(ConfigError, match="epochs=-1"):
        ImageClassifier(model, epochs=-1).fit(x, y)


# ------------------------------------------------------------------------------------ scikit-learn


@pytest.fixture
def sklearn():
    return pytest.importorskip("sklearn", reason="scikit-learn's tools are tested; install nnlite[test]")


def test_cloning(sklearn, fitted):
    from sklearn.base import clone, is_classifier

    fresh = clone(fitted)
    assert fresh.get_params() == fitted.get_params()
    assert not hasattr(fresh, "classes_") and is_classifier(fresh)


def test_cross_validation(sklearn, model):
    from sklearn.model_selection import cross_val_predict, cross_val_score

    x, y = pictures(24)
    one = ImageClassifier(model, **QUICK)
    np.testing.assert_array_equal(cross_val_score(one, x, y, cv=2), [1, 1])
    names = np.array(["r", "g", "b"])[y]
    np.testing.assert_array_equal(cross_val_predict(one, x, names, cv=2), names)


def test_searching_a_grid(sklearn, model):
    from sklearn.model_selection import GridSearchCV

    x, y = pictures(24)
    grid = {"head_learning_rate": [1e-9, 0.3]}
    search = GridSearchCV(ImageClassifier(model, **QUICK), grid, cv=2, n_jobs=1, error_score="raise").fit(
        x, y
    )
    assert search.best_params_ == {"head_learning_rate": 0.3}
    assert search.best_score_ == 1 and search.score(x, y) == 1


@pytest.mark.parametrize(
    "name",
    ["check_get_params_invariance", "check_set_params", "check_estimator_repr", "check_estimator_cloneable",
     "check_valid_tag_types", "check_estimator_tags_renamed"],
)  # fmt: skip
def test_the_checks_that_apply_to_pictures(sklearn, model, name):
    from sklearn.utils import estimator_checks

    check = getattr(estimator_checks, name, None)
    if check is None:
        pytest.skip(f"this release of scikit-learn has no {name}")
    check("ImageClassifier", ImageClassifier(model, **QUICK))
