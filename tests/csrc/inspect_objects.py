"""Looks at compiled objects: no file may hold instructions that the processor it runs on might lack.

    python tests/csrc/inspect_objects.py FOLDER [--target arm] [--objdump aarch64-linux-gnu-objdump]

FOLDER holds objects at their sources' paths (csrc/cpu/norm.o), as build.py and setup.py's build_ext
leave them. x86: AVX and AMX live in their instruction sets' files only. AArch64: nothing beyond ARMv8.0. All:
an instruction set's file exports its table and nothing else, runs nothing when it is loaded, and the
largest GEMM tile is fused multiply-adds on vectors that stay in registers; with AMX four products of tiles.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from build import recipe

# Bytes (segments, address size) that may stand before a VEX (c4, c5) or EVEX (62) prefix. In 64-bit mode
# nothing else begins so.
SEGMENT_OR_ADDRESS_SIZE = {"26", "2e", "36", "3e", "64", "65", "67"}

# Mnemonics of AArch64's extensions after ARMv8.0-A; scalable vectors are known by their registers. Atomics
# through libgcc's __aarch64_* are calls that ask the processor first.
BEYOND_ARMV8_0 = re.compile(
    r"^(ldadd|ldclr|ldeor|ldset|ld[us]max|ld[us]min|stadd|stclr|steor|stset|swp|cas|ldapr|ldlar|stllr"
    r"|[su]dot|usdot|sudot|[su]mmla|usmmla|bfdot|bfmmla|bfmla|bfcvt|fmlal|fmlsl|fcmla|fcadd|sqrdml[as]h"
    r"|fjcvtzs|rmif|setf|cfinv|f(add|sub|mul|div|ml[as]|max|min|sqrt|abs|neg)[a-z]* (v\d+\.[48]h|h\d+))"
    r"|\b[zp]\d+(\.[bhsd]\b|/[mz]\b)"
)


@dataclass(frozen=True)
class Instruction:
    address: int
    encoding: list[str]
    text: str  # mnemonic and operands, without comments


def functions(objdump: str, file: Path) -> dict[str, list[Instruction]]:
    """Demangled name -> instructions."""
    command = [objdump, "--disassemble", "--demangle", "--wide", str(file)]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, list[Instruction]] = {}
    current: list[Instruction] = []
    for line in listing.splitlines():
        if header := re.fullmatch(r"[0-9a-f]+ <(.*)>:", line):
            current = found.setdefault(header[1], [])
        elif row := re.match(r" *([0-9a-f]+):\t([0-9a-f ]+)\t(.*)", line):
            text = re.sub(r"\s+", " ", re.split(r"\s+(?:# [0-9a-f]|//)", row[3])[0]).strip()
            current.append(Instruction(int(row[1], 16), row[2].split(), text))
    assert any(found.values()), f"{file}: objdump shows no code"
    return found


# ---------------------------------------------------------------------------------- foreign code


def vector_encoding(instruction: Instruction) -> str | None:
    """VEX or EVEX, or None for what every x86-64 has (as far as SSE2 goes: no flag allows more)."""
    for byte in instruction.encoding:
        if byte not in SEGMENT_OR_ADDRESS_SIZE:
            return {"c4": "VEX", "c5": "VEX", "62": "EVEX"}.get(byte)
    return None


# What may use which of AVX-512's products and tiles: mnemonics, and the flag that allows them.
PRODUCTS = {
    r"vpdp": "-mavx512vnni",
    r"vdpbf16|vcvtne2?ps2bf16": "-mavx512bf16",
    r"(ld|st)tilecfg|tile|tdp": "-mamx-tile",
}


def foreign_x86(code: dict[str, list[Instruction]], flags: list[str]) -> Iterator[str]:
    allowed = {"VEX"} if flags else set()
    if any("avx512" in flag for flag in flags):
        allowed.add("EVEX")
    forbidden = "|".join(mnemonics for mnemonics, flag in PRODUCTS.items() if flag not in flags)
    for name, instructions in code.items():
        for instruction in instructions:
            encoding = vector_encoding(instruction)
            if encoding and encoding not in allowed:
                yield f"{encoding} instruction in {name}: {instruction.text}"
            elif encoding and re.match(forbidden or "$", instruction.text):
                yield f"not of this instruction set, in {name}: {instruction.text}"


def foreign_arm(code: dict[str, list[Instruction]], flags: list[str]) -> Iterator[str]:
    for name, instructions in code.items():
        for instruction in instructions:
            if BEYOND_ARMV8_0.search(instruction.text):
                yield f"not in ARMv8.0: {instruction.text} in {name}"


# -------------------------------------------------------------------------------------- hot loop


JUMP = re.compile(r"(?:j[a-z]+|b(?:\.[a-z]+)?|cbn?z \w+,|tbn?z \w+, #\d+,) *([0-9a-f]+) <")


def loops(instructions: list[Instruction]) -> list[list[Instruction]]:
    """Innermost loops: from the target of a jump backwards to the jump, with no other such in between."""
    spans = []
    for instruction in instructions:
        jump = JUMP.match(instruction.text)
        if jump and int(jump[1], 16) < instruction.address:
            spans.append((int(jump[1], 16), instruction.address))
    inner = [s for s in spans if not any(t != s and s[0] <= t[0] and t[1] <= s[1] for t in spans)]
    return [[i for i in instructions if start <= i.address <= end] for start, end in inner]


def tile_faults(code: dict[str, list[Instruction]], target: str) -> tuple[list[str], str]:
    """What is wrong with the largest GEMM tile's hot loop, and its description."""
    tiles = {}
    for name in code:
        if tile := re.search(r"\bgemm_tile<(\d+), (\d+)>", name):
            tiles[int(tile[1]), int(tile[2])] = name
    assert tiles, "no gemm_tile<rows, vectors>: has the tile another name? mend inspect_objects.py"
    rows, vectors = max(tiles)
    hot = max(
        ([i.text for i in loop] for loop in loops(code[tiles[rows, vectors]])),
        key=lambda loop: sum("mla" in t or "madd" in t or "mul" in t for t in loop),
    )
    if target == "arm":
        what, products, scalars = "fmla", r"fmla v\d+\.4s", r"fmadd|fmul s|fmla v\d+\.2s"
        spill = r"(str|stp|ldr|ldp) q.*\[sp"
    elif any("vfmadd" in text for text in hot):
        what, products, scalars = "vfmadd", r"vfn?madd\d+ps .*%[yz]mm", r"vfn?madd\d+ss"
        spill = r"vmov\w+ .*(%[yz]mm.*\(%rsp|\(%rsp.*%[yz]mm)"
    else:
        what, products, scalars = "mulps", r"mulps", r"mulss"
        spill = None  # sixteen registers hold the accumulators, but two-operand code has none to spare
    count = sum(bool(re.match(products, text)) for text in hot)
    found = []
    if count == 0 or count % (rows * vectors):
        found.append(f"{count} vector multiply-adds per round of the {rows}x{vectors} tile's loop")
    found += [f"scalar product in the tile's loop: {t}" for t in hot if re.match(scalars, t)]
    found += [f"spilled in the tile's loop: {t}" for t in hot if spill and re.match(spill, t)]
    return found, f"the {rows}x{vectors} tile's loop has {count} {what} in {len(hot)} instructions"


def amx_faults(code: dict[str, list[Instruction]]) -> tuple[list[str], str]:
    """The same for the largest products of AMX's tiles."""
    found, notes = [], []
    for kind, product in (("Bytes", "tdpbusd"), ("Pairs", "tdpbf16ps")):
        [name] = [n for n in code if re.search(rf"\bproduct<.*{kind}, 2, 2>", n)]
        texts = [i.text for i in code[name]]
        products, loads = (sum(t.startswith(what) for t in texts) for what in (product, "tileloadd"))
        if not products or products % 4 or loads != products:
            found.append(f"{products} {product} and {loads} loads of tiles in {name}, not four for four")
        notes.append(f"{products} {product} for {loads} loads")
    return found, " and ".join(notes)


# ----------------------------------------------------------------------------------------- files


def exports(nm: str, file: Path, isa: str) -> Iterator[str]:
    command = [nm, "--extern-only", "--defined-only", "--demangle", str(file)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    names = [line.split(maxsplit=2)[2] for line in lines]
    if len(names) != 1 or not re.fullmatch(rf"nnlite::(kernels|reduced|products)_{isa}", names[0]):
        yield f"exports {', '.join(names)}; it may export the table of {isa} alone"


def initialisers(objdump: str, file: Path) -> Iterator[str]:
    command = [objdump, "--section-headers", str(file)]
    headers = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if re.search(r"\.(init_array|ctors)", headers):
        yield "runs code when it is loaded: its table is not constant-initialised"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--target", choices=["x86", "arm"], default="x86")
    parser.add_argument("--objdump", default="objdump")
    parser.add_argument("--nm", default="nm")
    options = parser.parse_args()
    setup = recipe()
    isa_flags = setup["ISA_FLAGS"][options.target]
    isas = {f"{setup['CPU']}/isa/{name}.o": (name, flags) for name, flags in isa_flags.items()}
    foreign = foreign_x86 if options.target == "x86" else foreign_arm
    wrong, seen = [], set()
    for file in sorted(options.folder.rglob("csrc/**/*.o")):
        source = file.relative_to(options.folder).as_posix()
        isa, flags = isas.get(source, ("", []))
        code = functions(options.objdump, file)
        found, note = list(foreign(code, flags)), ""
        if isa:
            seen.add(source)
            faults: list[str] = []
            if "-mamx-tile" in flags:
                faults, note = amx_faults(code)
            elif any("gemm_tile<" in name for name in code):
                faults, note = tile_faults(code, options.target)
            found += [*exports(options.nm, file, isa), *initialisers(options.objdump, file), *faults]
        print(f"{source}: {sum(map(len, code.values()))} instructions{': ' * bool(note)}{note}")
        wrong += [f"{source}: {text}" for text in found]
    if missing := set(isas) - seen:
        wrong.append(f"no objects of {', '.join(sorted(missing))}")
    sys.exit("\n".join(wrong[:40]) or None)


if __name__ == "__main__":
    main()
