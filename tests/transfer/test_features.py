"""Features are computed once, kept in memory or in files, and never trusted where anything differs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import nnlite
import nnlite.onnx as nx
from nnlite.data import ImageFolder, Loader, Preprocessing
from nnlite.errors import ConfigError, FileError
from nnlite.transfer import Callback, FinetuneConfig, feature_file, finetune
from nnlite.transfer.feature_file import Features
from nnlite.transfer.features import FeatureStore, choose_cache

STORE = import_module("nnlite.transfer.features")
F16, F32 = np.dtype(np.float16), np.dtype(np.float32)


def some(count=5, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((count, 4, 5, 3)).astype(np.float32).transpose(0, 3, 1, 2)
    return Features(values, np.arange(count) % 2, np.arange(count))


def pieces(whole, *sizes):
    begin = 0
    for size in sizes:
        yield Features(*(array[begin : begin + size] for array in whole))
        begin += size


# ------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("dtype", [F32, F16])
def test_what_is_written_is_read(tmp_path, dtype):
    path, whole = tmp_path / "features.safetensors", some()
    feature_file.write(path, "key", pieces(whole, 2, 2, 1), dtype)
    read = feature_file.read(path, "key")
    assert read.values.dtype == dtype and nnlite.layout.is_channels_last(read.values)
    assert isinstance(read.values.base, np.memmap)
    np.testing.assert_array_equal(read.values, whole.values.astype(dtype))
    np.testing.assert_array_equal(read.labels, whole.labels)
    np.testing.assert_array_equal(read.indices, whole.indices)
    assert [entry.name for entry in tmp_path.iterdir()] == ["features.safetensors"]


def test_others_can_read_the_file(tmp_path):
    from safetensors.numpy import load_file

    feature_file.write(tmp_path / "f", "key", pieces(some(), 5), F32)
    arrays = load_file(tmp_path / "f")
    np.testing.assert_array_equal(arrays["features"], some().values.transpose(0, 2, 3, 1))


def test_a_file_that_is_not_whole_or_not_ours_is_as_good_as_none(tmp_path):
    path = tmp_path / "f"
    feature_file.write(path, "key", pieces(some(), 3, 2), F32)
    whole = path.read_bytes()
    assert feature_file.read(path, "another key") is None
    assert feature_file.read(tmp_path / "nothing", "key") is None
    for at in [0, 8, 20, 300, feature_file.HEADER, feature_file.HEADER + 700, len(whole) - 1]:
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        path.write_bytes(damaged)
        assert feature_file.read(path, "key") is None, at
    for size in [0, 5, feature_file.HEADER - 1, feature_file.HEADER, len(whole) - 1]:
        path.write_bytes(whole[:size])
        assert feature_file.read(path, "key") is None, size
    path.write_bytes(whole + b"more")
    assert feature_file.read(path, "key") is None
    path.write_bytes(whole)
    assert feature_file.read(path, "key") is not None


def test_an_error_while_computing_leaves_nothing(tmp_path):
    def rows():
        yield some()
        raise RuntimeError("a picture")

    with pytest.raises(RuntimeError, match="a picture"):
        feature_file.write(tmp_path / "f", "key", rows(), F32)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot be written"):
        feature_file.write(tmp_path / "file" / "f", "key", pieces(some(), 5), F32)


KILLED = """
import sys, time
from pathlib import Path
import numpy as np
from nnlite.transfer import feature_file
def rows():
    for i in range(1000):
        yield feature_file.Features(np.ones((4, 3, 9, 9), np.float32), np.zeros(4, int), np.zeros(4, int))
        print(i, flush=True)
        time.sleep(0.001)
feature_file.write(Path(sys.argv[1]), "key", rows(), np.dtype(np.float32))
"""


def test_a_process_killed_while_it_writes_leaves_nothing_that_is_trusted(tmp_path):
    path = tmp_path / "f.safetensors"
    environment = os.environ | {"PYTHONPATH": str(Path(nnlite.__file__).parent.parent)}
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, env=environment
    )
    while process.stdout.readline() != b"50\n":
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not path.exists() and feature_file.read(path, "key") is None
    (left,) = tmp_path.iterdir()
    left.rename(path)  # even under its final name
    assert feature_file.read(path, "key") is None
    left = tmp_path / ".old.safetensors.x"
    path.rename(left)
    os.utime(left, (time.time() - 1e6,) * 2)
    FeatureStore((3, 9, 9), tmp_path)._make_room(0)
    assert not left.exists()


# ------------------------------------------------------------------------------------------- store


@pytest.fixture(scope="module")
def setting(mobilenet_path, few_pictures):
    module = nx.load(mobilenet_path).freeze().eval()
    plan = module.cut("/features/features.13/Add_output_0")[0].compile()
    folder = ImageFolder.open(few_pictures)
    preprocessing = Preprocessing.named("imagenet", 64)

    def loader(training=False, seed=0, batch=4):
        transform = preprocessing.training() if training else preprocessing.evaluation()
        return Loader(folder.train, transform, batch, seed=seed)

    return plan, loader


def assert_equal(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_same_numbers_from_memory_and_from_files(setting, tmp_path):
    plan, loader = setting
    in_memory = FeatureStore((3, 64, 64)).compute(plan, loader(), 0)
    for found in (0, 1):
        store = FeatureStore((3, 64, 64), tmp_path)
        assert_equal(store.compute(plan, loader(), 0), in_memory)
        assert store.found == found
    (path,) = tmp_path.iterdir()
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    store = FeatureStore((3, 64, 64), tmp_path)
    assert_equal(store.compute(plan, loader(), 0), in_memory)
    assert store.found == 0


def test_the_key_covers_what_the_numbers_depend_on(
    setting, mobilenet_path, few_pictures, tmp_path, monkeypatch
):
    plan, loader = setting
    keys = {"plain": FeatureStore((3, 64, 64))._key(plan, loader(), 0)}
    store = FeatureStore((3, 64, 64))
    assert store._key(plan, loader(), 0) == keys["plain"]
    keys["epoch"] = store._key(plan, loader(), 1)
    keys["transform"] = store._key(plan, loader(training=True), 0)
    keys["seed"] = store._key(plan, loader(seed=1), 0)
    keys["batch"] = store._key(plan, loader(batch=5), 0)
    keys["size"] = FeatureStore((3, 96, 96))._key(plan, loader(), 0)
    keys["precision"] = FeatureStore((3, 64, 64), dtype=F16)._key(plan, loader(), 0)
    with nnlite.use_backend("reference"):
        keys["backend"] = store._key(plan, loader(), 0)
    other = nx.load(mobilenet_path).freeze().eval()
    weight = next(iter(other.parameters()))
    weight.assign(weight.numpy() * np.float32(1.0001))
    keys["weights"] = store._key(other.cut("/features/features.13/Add_output_0")[0].compile(), loader(), 0)
    keys["cut"] = store._key(other.cut("/features/features.12/Add_output_0")[0].compile(), loader(), 0)
    changed = loader()
    target = tmp_path / "picture"
    target.write_bytes(changed.samples[0].path.read_bytes() + b"\0")
    changed.samples = [replace(changed.samples[0], path=target), *changed.samples[1:]]
    keys["picture"] = store._key(plan, changed, 0)
    monkeypatch.setattr(STORE, "__version__", "0.0.0")
    keys["version"] = store._key(plan, loader(), 0)
    assert len(set(keys.values())) == len(keys), keys


def test_files_stay_below_the_limit(setting, tmp_path):
    plan, loader = setting
    store = FeatureStore((3, 64, 64), tmp_path)
    store.compute(plan, loader(), 0)
    size = next(tmp_path.iterdir()).stat().st_size
    store.limit = 2 * size + 100
    for epoch in (1, 2, 3):
        store.compute(plan, loader(), epoch)
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= store.limit
    store.limit = 100
    with pytest.raises(ConfigError, match=r"the features need .* MB but --cache-limit is 0 MB; raise it"):
        store.compute(plan, loader(), 4)


# ------------------------------------------------------------------------------------------ choice


def config_with(**options):
    return FinetuneConfig("model.onnx", "data", **options)


def test_where_features_are_kept_is_explained(tmp_path):
    choice = choose_cache(config_with(), 100, (96, 10, 10), (80, 20))
    assert choice.mode == "memory"
    assert choice.reason == (
        "features stay in memory: 4 views of 100 pictures are 15 MB, "
        "57% of the arithmetic of 8 epochs is done once"
    )
    disk = config_with(cache="disk", cache_dir=str(tmp_path / "new"), cache_precision="fp16")
    choice = choose_cache(disk, 100, (96, 10, 10), (80, 20))
    assert choice.mode == "disk" and "are 7 MB" in choice.reason
    assert choose_cache(config_with(cache="off"), 1, (1,), (1, 1)).mode == "off"
    huge = choose_cache(config_with(cache_limit="1GB"), 10**9, (96, 10, 10), (80, 20))
    assert huge.mode == "off" and "more than memory and disk allow" in huge.reason
    with pytest.raises(ConfigError, match="cache_limit=1MB: 4 views of 100 pictures are 15 MB; raise it"):
        choose_cache(replace(disk, cache_limit="1MB", cache_precision="fp32"), 100, (96, 10, 10), (80, 20))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"cache": "cloud"}, "cache='cloud' must be one of auto, memory, disk, off"),
        ({"cache_precision": "int4"}, "cache_precision='int4' must be one of fp32, fp16"),
        ({"cache_limit": "much"}, "cache_limit='much' must be bytes, such as"),
    ],
)
def test_options_out_of_range(option, message):
    with pytest.raises(ConfigError, match=message):
        config_with(**option)


def test_a_second_run_finds_the_first_ones_features(mobilenet_path, few_pictures, tmp_path):
    said: list[str] = []

    class Listener(Callback):
        def on_message(self, text):
            said.append(text)

    results = []
    for number, cache in enumerate(["memory", "disk", "disk"]):
        config = FinetuneConfig(
            str(mobilenet_path), str(few_pictures), str(tmp_path / f"{number}.onnx"), cache=cache,
            cache_dir=str(tmp_path / "cache"), head_epochs=2, epochs=3, views=2, batch_size=8, size=64,
            baselines=False,
        )  # fmt: skip
        finetune(config, callbacks=[Listener()])
        results.append(Path(config.out).read_bytes())
    assert sum("3 of 3 sets of features were there from an earlier run" in line for line in said) == 1
    assert results[0] == results[1] == results[2]
