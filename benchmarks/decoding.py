"""Whether decoding keeps up with training: python benchmarks/decoding.py [repeats]

Pictures as they are in the bundled drawings (160 pixels), and as cameras make them (4000 x 3000, made of
the same drawings with noise), in JPEG; MobileNetV2 at 160 and 224 pixels. For both: what decoding and
augmenting a picture costs, with and without JPEG's reduced scales; then an epoch of features of the frozen
network, and of training all of it, with two threads that decode beside two that compute. "waits" is the
part of the time in which the network has no batch, "cores" how many are busy on average, and "apart" the
time of decoding alone and computing alone one after the other. Medians.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from nnlite import functional as F
from nnlite import onnx
from nnlite.data import Loader, Preprocessing, Sample
from nnlite.optim import AdamW
from nnlite.tensors import Tensor

ROOT = Path(__file__).resolve().parent.parent
MODEL, DATA = ROOT / "examples/assets/mobilenet_v2.onnx", ROOT / "examples/assets/clipart8/train"
WORKERS = 2


def large(source: Path, target: Path, seed: int) -> None:
    """The same drawing as a camera would have it: 12 million pixels, and noise that JPEG must store."""
    with Image.open(source) as picture:
        pixels = np.asarray(picture.convert("RGB").resize((4000, 3000)), np.int16)
    noise = np.random.default_rng(seed).normal(0, 6, pixels.shape).astype(np.int16)
    Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8)).save(target, quality=90)


def clock(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the wall and of all cores together."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(name: str, loader: Loader, compute: Callable[[object, object], object], repeats: int) -> None:
    """One row: decoding alone, computing alone, both at once."""
    batches = list(loader.epoch(0))
    rows, waited = [], 0.0

    def both() -> None:
        nonlocal waited
        epoch = loader.epoch(0)
        waited = 0.0
        while True:
            begin = time.perf_counter()
            batch = next(epoch, None)
            waited += time.perf_counter() - begin
            if batch is None:
                return
            compute(batch.images, batch.labels)

    for _ in range(repeats + 1):  # the first one warms up
        apart = clock(lambda: list(loader.epoch(0)))[0]
        apart += clock(lambda: [compute(b.images, b.labels) for b in batches])[0]
        wall, cpu = clock(both)
        rows.append((wall, cpu / wall, waited / wall, apart))
    wall, cores, waits, apart = (statistics.median(column) for column in zip(*rows[1:], strict=True))
    rate = len(loader.samples) / wall
    print(f"  {name:<22} {rate:6.1f} pictures/s   waits {waits:4.0%}   {cores:.2f} cores   "
          f"{wall:.2f} s, apart {apart:.2f} s")  # fmt: skip


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with tempfile.TemporaryDirectory() as place:
        small = sorted(DATA.rglob("*.jpg"))[::2]
        camera = [Path(place) / f"{number}.jpg" for number in range(24)]
        for number, (source, target) in enumerate(zip(small, camera, strict=False)):
            large(source, target, number)
        for title, paths, side in (("160 pixels", small[:96], 160), ("4000 x 3000 pixels", camera, 224)):
            preprocessing = Preprocessing.named("imagenet", side)
            transform, hint = preprocessing.training("light"), preprocessing.decode_hint()
            samples = [Sample(path, number % 8) for number, path in enumerate(paths)]
            print(f"{title}, network at {side}")
            for how, at_least in (("whole", None), ("reduced", hint)):
                loader = Loader(samples, transform, 8, workers=0, at_least=at_least, cache_bytes=0)
                _, cpu = clock(lambda loader=loader: list(loader.epoch(0)))
                print(f"  decoded {how:<8}       {1e3 * cpu / len(samples):6.1f} ms a picture, one core")
            module = onnx.load(MODEL)
            plan = module.compile()
            options = dict(workers=WORKERS, at_least=hint, cache_bytes=0)
            measure("features", Loader(samples, transform, 2, **options), lambda x, _, p=plan: p(x), repeats)
            trained = module.fused()
            optimizer = AdamW(list(trained.parameters()), lr=1e-5)

            def step(x, labels, model=trained, optimizer=optimizer):  # type: ignore[no-untyped-def]
                optimizer.zero_grad()
                F.cross_entropy(model(Tensor(x)), labels).backward()
                optimizer.step()

            measure("training everything", Loader(samples, transform, 16, **options), step, repeats)


if __name__ == "__main__":
    main()
