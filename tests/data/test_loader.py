from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import nnlite.data.dataset as dataset_module
from nnlite.data import (
    Batch,
    Compose,
    Loader,
    Normalize,
    Preprocessing,
    Resize,
    Sample,
    ToFloat,
    decode,
    generator,
)
from nnlite.errors import ConfigError, DataError, NnliteError, ShapeError
from nnlite.layout import is_channels_last

EVALUATION = Compose([Resize((8, 10)), ToFloat()])
TRAINING = Preprocessing.named("imagenet", 16).training()


@pytest.fixture
def samples(tree: Callable[..., Path]) -> list[Sample]:
    root = tree({f"c/{i:02}.png": i for i in range(11)})
    return [Sample(path, i % 3) for i, path in enumerate(sorted(root.glob("c/*.png")))]


def loader_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("nnlite-loader")]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> object:
    yield
    assert loader_threads() == []


def spoil(samples: list[Sample], *indices: int) -> None:
    for index in indices:
        samples[index].path.write_text("not a picture")


# ---------------------------------------------------------------------------------- batches


def test_batches(samples: list[Sample]) -> None:
    loader = Loader(samples, EVALUATION, 4)
    batches = list(loader.epoch(0))
    assert [len(batch.labels) for batch in batches] == [4, 4, 3]
    assert len(loader) == 3
    for batch in batches:
        assert batch.images.shape == (len(batch.labels), 3, 8, 10)
        assert batch.images.dtype == np.float32
        assert batch.labels.dtype == batch.indices.dtype == np.int64
        assert is_channels_last(batch.images)
    assert np.concatenate([b.indices for b in batches]).tolist() == list(range(11))
    assert np.concatenate([b.labels for b in batches]).tolist() == [i % 3 for i in range(11)]
    expected = EVALUATION(decode(samples[6].path))
    np.testing.assert_array_equal(batches[1].images[2], expected)


@pytest.mark.parametrize(
    ("size", "drop_last", "expected"), [(4, True, [4, 4]), (11, True, [11]), (20, False, [11])]
)
def test_drop_last(samples: list[Sample], size: int, drop_last: bool, expected: list[int]) -> None:
    loader = Loader(samples, EVALUATION, size, drop_last=drop_last)
    assert [len(batch.labels) for batch in loader.epoch(0)] == expected
    assert len(loader) == len(expected)


def test_any_picture_can_be_reproduced_alone(samples: list[Sample]) -> None:
    loader = Loader(samples, TRAINING, 4, shuffle=True, seed=9)
    seen = 0
    for images, _, indices in loader.epoch(5):
        for image, index in zip(images, indices.tolist(), strict=True):
            alone = TRAINING(decode(samples[index].path), generator(9, 5, index))
            np.testing.assert_array_equal(image, alone)
            seen += 1
    assert seen == 11


def test_workers_and_cache_change_nothing(samples: list[Sample]) -> None:
    def run(workers: int, cache_bytes: int) -> list[Batch]:
        loader = Loader(samples, TRAINING, 3, shuffle=True, seed=2, workers=workers, cache_bytes=cache_bytes)
        return [batch for epoch in (0, 1) for batch in loader.epoch(epoch)]

    expected = run(0, 0)
    assert len(expected) == 8
    for workers, cache_bytes in [(0, 2**20), (1, 0), (2, 3000), (2, 2**20), (5, 0), (5, 2**20)]:
        for batch, other in zip(run(workers, cache_bytes), expected, strict=True):
            for array, reference in zip(batch, other, strict=True):
                np.testing.assert_array_equal(array, reference)


def test_shuffling(samples: list[Sample]) -> None:
    loader = Loader(samples, EVALUATION, 4, shuffle=True, seed=1)
    orders = [loader.order(epoch).tolist() for epoch in range(3)]
    assert len({tuple(order) for order in orders}) == 3
    assert all(sorted(order) == list(range(11)) for order in orders)
    assert orders[0] != Loader(samples, EVALUATION, 4, shuffle=True, seed=2).order(0).tolist()
    visited = np.concatenate([batch.indices for batch in loader.epoch(2)]).tolist()
    assert visited == orders[2]


def test_an_epoch_can_be_repeated_and_interleaved(samples: list[Sample]) -> None:
    loader = Loader(samples, TRAINING, 4, shuffle=True)
    for first, second in zip(loader.epoch(3), loader.epoch(3), strict=True):
        np.testing.assert_array_equal(first.images, second.images)


# ---------------------------------------------------------------------------------- bad pictures


@pytest.mark.parametrize("workers", [0, 2])
def test_fail_names_the_first_bad_picture(samples: list[Sample], workers: int) -> None:
    spoil(samples, 5, 9)
    batches = Loader(samples, EVALUATION, 4, workers=workers).epoch(0)
    assert next(batches).indices.tolist() == [0, 1, 2, 3]
    with pytest.raises(DataError, match=r"05\.png: its content is no picture"):
        next(batches)


@pytest.mark.parametrize("workers", [0, 3])
def test_skip_drops_and_lists_once(samples: list[Sample], workers: int) -> None:
    spoil(samples, 9, 1, 4, 5, 6, 7)
    loader = Loader(samples, EVALUATION, 4, workers=workers, on_bad_image="skip")
    assert loader.skipped == ()
    for epoch in (0, 1):
        assert [batch.indices.tolist() for batch in loader.epoch(epoch)] == [[0, 2, 3], [8, 10]]
    assert [skipped.path.name for skipped in loader.skipped] == [f"{i:02}.png" for i in (1, 4, 5, 6, 7, 9)]
    assert all(str(s.path) in s.reason and "no picture" in s.reason for s in loader.skipped)


def test_a_bad_picture_is_read_once(samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(samples, 3)
    reads = count_decodes(monkeypatch)
    loader = Loader(samples, EVALUATION, 4, on_bad_image="skip", cache_bytes=0)
    for epoch in range(3):
        assert sum(len(batch.labels) for batch in loader.epoch(epoch)) == 10
    assert reads.count(samples[3].path) == 1
    assert reads.count(samples[2].path) == 3


def test_skipping_everything_is_an_error(samples: list[Sample]) -> None:
    spoil(samples, *range(11))
    loader = Loader(samples, EVALUATION, 4, on_bad_image="skip")
    with pytest.raises(DataError, match=r"none of the 11 pictures could be used; the first: .*00\.png"):
        list(loader.epoch(0))


def test_a_sliver_is_a_bad_picture(samples: list[Sample]) -> None:
    transform = Compose([Resize(10**6), ToFloat()])
    with pytest.raises(DataError, match=r"00\.png: resize: 20 x 24 would become"):
        next(Loader(samples, transform, 4).epoch(0))
    loader = Loader(samples[:2], transform, 4, on_bad_image="skip")
    with pytest.raises(DataError, match="none of the 2 pictures"):
        next(loader.epoch(0))


# ---------------------------------------------------------------------------------- other errors


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("on_bad_image", ["fail", "skip"])
def test_a_failing_transform_is_a_bug_with_a_name(
    samples: list[Sample], workers: int, on_bad_image: str
) -> None:
    def transform(picture: np.ndarray, rng: object = None) -> np.ndarray:
        if picture.shape[0] == 22:
            raise KeyError("oops")
        return ToFloat()(picture[:20])

    loader = Loader(samples, transform, 4, workers=workers, on_bad_image=on_bad_image)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match=r"02\.png: the transform failed \(KeyError: 'oops'\)") as caught:
        list(loader.epoch(0))
    assert not isinstance(caught.value, NnliteError)
    assert isinstance(caught.value.__cause__, KeyError)


def test_an_error_of_ours_keeps_its_type(samples: list[Sample]) -> None:
    grey = Compose([lambda picture, rng=None: picture[..., 0], ToFloat()])
    with pytest.raises(ShapeError, match=r"00\.png: ToFloat: picture has shape \[20, 24\]"):
        next(Loader(samples, grey, 4).epoch(0))


def test_shapes_must_agree(samples: list[Sample]) -> None:
    message = r"01\.png: the transform gave float32 \[3, 21, 24\]; a batch needs .*first is \[3, 20, 24\]"
    with pytest.raises(ShapeError, match=message):
        next(Loader(samples, ToFloat(), 4).epoch(0))


def test_floats_must_come_out(samples: list[Sample]) -> None:
    with pytest.raises(ShapeError, match=r"00\.png: the transform gave uint8 \[9, 9, 3\]; .* then Normalize"):
        next(Loader(samples, Resize((9, 9)), 4).epoch(0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"workers": -1}, "workers=-1 must be at least 0"),
        ({"cache_bytes": -1}, "cache_bytes=-1 must be at least 0"),
        ({"on_bad_image": "ignore"}, "on_bad_image='ignore' must be 'fail' or 'skip'"),
        ({"samples": []}, "no samples; is this part of the folder empty"),
        ({"batch_size": 12, "drop_last": True}, "drop_last leaves nothing of 11 samples in batches of 12"),
    ],
)
def test_options(samples: list[Sample], options: dict[str, object], message: str) -> None:
    given = {"samples": samples, "transform": EVALUATION, "batch_size": 4} | options
    with pytest.raises(ConfigError, match=message):
        Loader(**given)  # type: ignore[arg-type]


def test_a_bad_epoch_raises_at_once(samples: list[Sample]) -> None:
    with pytest.raises(ConfigError, match="epoch=-1 must be in"):
        Loader(samples, EVALUATION, 4).epoch(-1)
    with pytest.raises(ConfigError, match="seed=-1 must be in"):
        Loader(samples, EVALUATION, 4, seed=-1).epoch(0)


# ---------------------------------------------------------------------------------- threads


def test_stopping_early_ends_the_threads(samples: list[Sample]) -> None:
    for batch in Loader(samples, EVALUATION, 2, workers=3).epoch(0):
        assert len(loader_threads()) == 3
        assert len(batch.labels) == 2
        break
    deadline = time.monotonic() + 5
    while loader_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert loader_threads() == []


def test_closing_ends_the_threads(samples: list[Sample]) -> None:
    batches = Loader(samples, EVALUATION, 2, workers=3).epoch(0)
    next(batches)
    batches.close()
    assert loader_threads() == []


def test_closing_waits_only_for_the_pictures_in_hand(samples: list[Sample]) -> None:
    begun, go_on = [], threading.Event()

    def transform(picture: np.ndarray, rng: object = None) -> np.ndarray:
        begun.append(1)
        if len(begun) > 1:
            go_on.wait(5)
        return ToFloat()(picture[:20])

    batches = Loader(samples, transform, 1, workers=1).epoch(0)
    next(batches)
    threading.Timer(0.05, go_on.set).start()
    batches.close()
    assert len(begun) <= 2, "pictures that nobody will take were prepared"


def test_a_raising_consumer_ends_the_threads(samples: list[Sample]) -> None:
    def consume() -> None:
        for _ in Loader(samples, EVALUATION, 2, workers=3).epoch(0):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        consume()
    del consume


def test_an_epoch_never_begun_has_no_threads(samples: list[Sample]) -> None:
    batches = Loader(samples, EVALUATION, 2, workers=3).epoch(0)
    assert loader_threads() == []
    batches.close()


def test_work_ahead_is_bounded(tree: Callable[..., Path]) -> None:
    root = tree({"c/x.png": 1})
    samples = [Sample(root / "c/x.png", 0)] * 60
    done = []

    def transform(picture: np.ndarray, rng: object = None) -> np.ndarray:
        done.append(1)
        return ToFloat()(picture)

    batches = Loader(samples, transform, 4, workers=2).epoch(0)
    next(batches)
    ahead = 4 + 2 * 2
    deadline = time.monotonic() + 5
    while len(done) < 4 - 1 + ahead and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.05)  # time in which a loader without a bound would run on
    assert 4 + 4 <= len(done) <= 4 + ahead, "one batch is made ahead, but not the whole epoch"
    batches.close()


def test_the_consumer_thread_does_no_work_with_workers(samples: list[Sample]) -> None:
    names = set()

    def transform(picture: np.ndarray, rng: object = None) -> np.ndarray:
        names.add(threading.current_thread().name.rsplit("_", 1)[0])
        return ToFloat()(picture[:20])

    list(Loader(samples, transform, 4, workers=2).epoch(0))
    assert names == {"nnlite-loader"}
    names.clear()
    list(Loader(samples, transform, 4, workers=0).epoch(0))
    assert names == {threading.current_thread().name.rsplit("_", 1)[0]}


# ---------------------------------------------------------------------------------- cache


def count_decodes(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    reads: list[Path] = []

    def counting(path: Path, **options: object) -> np.ndarray:
        reads.append(path)
        return decode(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(dataset_module, "decode", counting)
    return reads


def test_later_epochs_decode_nothing(samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    reads = count_decodes(monkeypatch)
    loader = Loader(samples, EVALUATION, 4)
    for epoch in range(3):
        list(loader.epoch(epoch))
    assert sorted(reads) == [sample.path for sample in samples]
    assert loader.cache.used == sum(decode(sample.path).nbytes for sample in samples)


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("limit", [1 << 20, 0])
def test_epochs_together_are_those_one_by_one(
    samples: list[Sample], workers: int, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(samples, 4)
    options = dict(workers=workers, on_bad_image="skip")
    expected = {epoch: list(Loader(samples, TRAINING, 2, **options).epoch(epoch)) for epoch in (3, 1, 2)}
    reads = count_decodes(monkeypatch)
    loader = Loader(samples, TRAINING, 2, cache_bytes=limit, **options)
    found: dict[int, list[Batch]] = {epoch: [] for epoch in (3, 1, 2)}
    order = []
    for epoch, batch in loader.epochs((3, 1, 2), 8):
        found[epoch].append(batch)
        order.append(epoch)
    assert order == [3] * 4 + [1] * 4 + [2] * 4 + [3, 3, 1, 1, 2, 2]
    for epoch, batches in expected.items():
        for a, b in zip(found[epoch], batches, strict=True):
            np.testing.assert_array_equal(a.images, b.images)
            np.testing.assert_array_equal(a.indices, b.indices)
    assert loader.cache.used == len(loader.cache) == 0
    if limit:
        assert sorted(reads) == [sample.path for sample in samples]


def test_the_cache_stays_below_its_limit(samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    reads = count_decodes(monkeypatch)
    loader = Loader(samples, EVALUATION, 4, cache_bytes=5000)  # pictures of 1440 to 1728 bytes: three fit
    for epoch in range(2):
        list(loader.epoch(epoch))
    assert len(loader.cache) == 3
    assert loader.cache.used <= 5000
    assert len(reads) == 11 + 8


def test_cached_pictures_cannot_be_written(samples: list[Sample]) -> None:
    def transform(picture: np.ndarray, rng: object = None) -> np.ndarray:
        picture[0] = 0
        return ToFloat()(picture)

    with pytest.raises(RuntimeError, match="read-only"):
        next(Loader(samples, transform, 1).epoch(0))


def test_at_least_reaches_the_decoder(samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fake(path: Path, *, at_least: tuple[int, int] | None, channels: int) -> np.ndarray:
        asked.append(at_least)
        return np.zeros((8, 8, 3), np.uint8)

    monkeypatch.setattr(dataset_module, "decode", fake)
    list(Loader(samples, Normalize((0, 0, 0), (1, 1, 1)), 11, at_least=(7, 5)).epoch(0))
    assert asked == [(7, 5)] * 11
