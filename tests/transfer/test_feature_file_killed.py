"""Feature files and kill -9: whatever the moment, what lies there is whole or is not used."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest

from nnlite.transfer import feature_file
from nnlite.transfer.feature_file import Features

ROWS, WIDTH, PART = 512, 1024, 32

WRITER = f"""
import sys
from pathlib import Path
import numpy as np
from nnlite.transfer import feature_file
from nnlite.transfer.feature_file import Features

def rows(number):
    for begin in range(0, {ROWS}, {PART}):
        indices = np.arange(begin, begin + {PART})
        yield Features(np.full(({PART}, {WIDTH}), number, np.float32), indices % 7, indices)

print("ready", flush=True)
number = 0
while True:
    number += 1
    feature_file.write(Path(sys.argv[1]), "key", rows(number), np.dtype(np.float32))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is POSIX")
def test_killed_at_any_moment_a_file_is_whole_or_none(tmp_path):
    path = tmp_path / "key.safetensors"
    rng = np.random.default_rng(0)
    found = 0
    for last in [False] * 11 + [True]:
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(rng.uniform(0, 0.03))
        while last and not path.exists():  # at least once there is something to find
            assert process.poll() is None
        process.kill()
        process.wait()
        process.stdout.close()
        features = feature_file.read(path, "key")
        if features is None:
            assert not path.exists()  # nothing under the name but what is whole
            continue
        found += 1
        assert features.values.shape == (ROWS, WIDTH)
        assert features.values.min() == features.values.max() >= 1  # of one write, not of two
        np.testing.assert_array_equal(features.indices, np.arange(ROWS))
    rows = [Features(np.zeros((4, 3), np.float32), np.arange(4), np.arange(4))]
    feature_file.write(path, "key", iter(rows), np.dtype(np.float32))  # what was left does not disturb
    again = feature_file.read(path, "key")
    assert found and again is not None and len(again.values) == 4


@pytest.mark.parametrize("part", [0, 1, 7, 100, 4095, 4096, 5000, -1])
def test_what_a_dying_disk_leaves_is_not_used(tmp_path, part):
    path = tmp_path / "key.safetensors"
    rows = [Features(np.ones((8, 64), np.float32), np.arange(8), np.arange(8))]
    feature_file.write(path, "key", iter(rows), np.dtype(np.float32))
    whole = path.read_bytes()
    path.write_bytes(whole[:part])  # cut short
    assert feature_file.read(path, "key") is None
    damaged = bytearray(whole)
    damaged[5000] ^= 1  # one bit among the numbers
    path.write_bytes(damaged)
    assert feature_file.read(path, "key") is None
    path.write_bytes(whole)
    assert feature_file.read(path, "another") is None
    assert feature_file.read(path, "key") is not None
