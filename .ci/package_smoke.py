"""An installed nnlite: ``package_smoke.py`` computes with it, ``package_smoke.py size LIMIT`` weighs it."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

INSTALLERS = ("pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils")


def compute() -> None:
    """One step of training on the native backend, next to NumPy's result."""
    import numpy as np

    import nnlite as nl

    installed = Path(sysconfig.get_path("purelib"))
    assert installed in Path(nl.__file__).parents, nl.__file__
    assert (installed / "nnlite" / "py.typed").exists()
    reason = nl.kernels.unavailable("native")
    assert reason is None, reason
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 3, 8, 8), np.float32), rng.standard_normal((4, 3, 3, 3), np.float32)
    results = []
    for backend in ("native", "reference"):
        with nl.use_backend(backend):
            weight = nl.nn.Parameter(w)
            loss = (nl.functional.conv2d(nl.tensor(x), weight, padding=1) ** 2).mean()
            loss.backward()
            results.append((loss.item(), weight.grad.numpy()))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-5)
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-4, atol=1e-5)
    print("forward and backward on the native backend agree with NumPy")


def weigh(limit: float) -> None:
    """Print the megabytes that packages brought into site-packages; exit with 1 above ``limit``.

    The installers are not counted, nor is the bytecode that Python writes next to the sources when it likes.
    """
    sizes: dict[str, int] = {}
    bytecode = 0
    site = Path(sysconfig.get_path("purelib"))
    for path in site.rglob("*"):
        package = path.relative_to(site).parts[0].split("-")[0].lower()
        if package in INSTALLERS or not path.is_file():
            continue
        if path.suffix == ".pyc":
            bytecode += path.stat().st_size
        else:
            sizes[package] = sizes.get(package, 0) + path.stat().st_size
    total = sum(sizes.values()) / 1e6
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:6]
    listed = ", ".join(f"{name} {size / 1e6:.1f}" for name, size in largest)
    print(f"installed: {total:.1f} MB ({listed}), and {bytecode / 1e6:.1f} MB of bytecode")
    if total > limit:
        sys.exit(f"an install must stay under {limit:g} MB")


if sys.argv[1:2] == ["size"]:
    weigh(float(sys.argv[2]))
else:
    compute()
