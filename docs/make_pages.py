"""Writes the pages that follow from the code: docs/ops/*.md and docs/api/*.md.

python docs/make_pages.py            write them
python docs/make_pages.py --check    exit with status 1 when they are not up to date
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from api_pages import pages as api_pages

from nnlite.kernels import SPECS, VARIANTS, unavailable
from nnlite.ops import OPS, READERS, ArrayType, Op

HERE = Path(__file__).parent
HEADER = "<!-- Written by docs/make_pages.py from the op records; change those, not this. -->\n\n"


def family(op: Op) -> str:
    """The file that the record stands in."""
    return op.forward.__module__.rsplit(".", 1)[-1] if op.forward.__name__ != "forward" else "elementwise"


def example(op: Op) -> str:
    """Shapes of the first sample, from the op's own shape rule."""
    sample = next(iter(op.samples()))
    arrays = sample.arrays()
    types = [None if a is None else ArrayType(a.shape, a.dtype) for a in arrays]
    results = ", ".join(str(list(t.shape)) for t in op.output_types(types, sample.params))
    operands = ", ".join("none" if a is None else str(list(a.shape)) for a in arrays)
    params = "".join(f", {key}={value!r}" for key, value in sample.params.items())
    return f"`{op.name}({operands}{params})` → `{results}`"


def section(op: Op) -> str:
    """One operation."""
    onnx = [name for name, (owner, _) in READERS.items() if owner is op]
    lines = [
        f"## {op.name}",
        "",
        op.formula,
        "",
        f"- **Gradient:** {op.gradient}",
        f"- **Example:** {example(op)}",
    ]
    lines.append(f"- **Source:** {op.source}")
    if onnx:
        lines.append(f"- **Reads ONNX:** {', '.join(onnx)}")
    if op.writes is None:
        lines.append("- **Writes ONNX:** never part of an exported model")
    if op.kernels:
        lines.append(f"- **Kernels:** {', '.join(f'[{name}](kernels.md#{name})' for name in op.kernels)}")
    return "\n".join(lines) + "\n"


def kernel_section(name: str) -> str:
    """One kernel and the variants that serve it."""
    spec = SPECS[name]
    variants = ", ".join(f"`{variant}`" for variant in VARIANTS[name])
    operands = f"({', '.join(spec.inputs)}) → ({', '.join(spec.outputs)})"
    lines = [f"## {name}", "", spec.formula, "", f"- **Operands:** {operands}"]
    if spec.optional:
        lines.append(f"- **May be absent:** {', '.join(sorted(spec.optional))}")
    lines.append(f"- **Variants, in order of preference within their backend:** {variants}")
    return "\n".join(lines) + "\n"


def pages() -> dict[str, str]:
    """File name -> text."""
    for backend in ("native", "numba", "reference"):
        unavailable(backend)  # variants register when their backend is first asked for
    families: dict[str, list[Op]] = {}
    for op in OPS.values():
        families.setdefault(family(op), []).append(op)
    result = {}
    for name, ops in sorted(families.items()):
        title = (sys.modules[f"nnlite.ops.{name}"].__doc__ or name).splitlines()[0]
        body = "\n".join(section(op) for op in ops)
        result[f"{name}.md"] = f"{HEADER}# {title}\n\nRecords: `nnlite/ops/{name}.py`\n\n{body}"
    kernels = "\n".join(kernel_section(name) for name in sorted(SPECS))
    result["kernels.md"] = f"{HEADER}# Kernels\n\nRows: `nnlite/kernels/catalog.py`\n\n{kernels}"
    rows = "\n".join(
        f"| [{name}]({name}.md) | {', '.join(f'[{op.name}]({name}.md#{op.name})' for op in ops)} |"
        for name, ops in sorted(families.items())
    )
    reads = ", ".join(sorted(READERS))
    result["README.md"] = (
        f"{HEADER}# Every operation\n\n{len(OPS)} operations, {len(SPECS)} [kernels](kernels.md).\n\n"
        f"| family | operations |\n| --- | --- |\n{rows}\n\n"
        f"## ONNX operators that are read ({len(READERS)})\n\n{reads}\n"
    )
    return result


def main() -> int:
    """Write the pages, or check them."""
    np.seterr(all="ignore")
    stale = []
    for folder, texts in ((HERE / "ops", pages()), (HERE / "api", api_pages())):
        folder.mkdir(exist_ok=True)
        old = {path for path in folder.glob("*.md") if path.name not in texts}
        new = {folder / name: text for name, text in texts.items()}
        changed = [path for path, text in new.items() if not _same(path, text)]
        stale += [str(path.relative_to(HERE)) for path in (*old, *changed)]
        if "--check" not in sys.argv[1:]:
            for path in old:
                path.unlink()
            for path in changed:
                path.write_text(new[path], encoding="utf-8")
    if "--check" in sys.argv[1:] and stale:
        print(f"not up to date: {', '.join(sorted(stale))}; run python docs/make_pages.py", file=sys.stderr)
        return 1
    return 0


def _same(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main())
