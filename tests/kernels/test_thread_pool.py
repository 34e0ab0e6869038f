"""The native thread pool among other processes: its workers stay free to run anywhere."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

pytest.importorskip("nnlite._native", reason="the native backend is not built")

CALLS = """
import os, time
import numpy as np
from nnlite import nn
from nnlite.tensors import Tensor
from nnlite.threads import set_num_threads
set_num_threads(3)
conv, x = nn.Conv2d(16, 16, 3, padding=1), Tensor(np.ones((4, 16, 28, 28), np.float32))
expected = conv(x).numpy()
for round in range(300):
    time.sleep(0.0005 * (round % 3))  # workers go to sleep
    for _ in range(3):
        assert (conv(x).numpy() == expected).all()
end = time.monotonic() + 20
while time.monotonic() < end:
    conv(x)
    allowed = [os.sched_getaffinity(int(thread)) for thread in os.listdir("/proc/self/task")]
    if all(one == os.sched_getaffinity(0) for one in allowed):
        break
    time.sleep(0.01)
else:
    raise SystemExit(f"a worker is bound for ever: {allowed}")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads are sent to cores on Linux only")
@pytest.mark.skipif(os.cpu_count() == 1, reason="one core: there is nowhere else to go")
def test_workers_are_free_again_where_every_core_is_busy():
    # A worker that was woken for a job and has not run before the next one is sent away twice.
    burner = f"import os\nwhile os.getppid() == {os.getpid()}: pass"
    burners = [subprocess.Popen([sys.executable, "-c", burner]) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        time.sleep(0.2)
        result = subprocess.run([sys.executable, "-c", CALLS], capture_output=True, text=True, timeout=300)
    finally:
        for process in burners:
            process.kill()
            process.wait()
    assert result.returncode == 0, result.stderr
