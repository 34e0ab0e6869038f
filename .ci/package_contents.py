"""What a wheel and a source distribution must hold: ``package_contents.py WHEEL SDIST TRACKED``.

TRACKED lists the files of the repository. The source distribution holds all of them and what setuptools
adds; the wheel holds the package, compiled, with its licence and the marker of its type hints.
"""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path

wheel, sdist, listing = sys.argv[1:]
tracked = set(Path(listing).read_text().splitlines())
problems = []

with tarfile.open(sdist) as archive:
    inside = {name.partition("/")[2] for name in archive.getnames() if archive.getmember(name).isfile()}
added = {name for name in inside if name.startswith("nnlite.egg-info/")} | {"PKG-INFO", "setup.cfg"}
problems += [f"the source distribution lacks {name}" for name in sorted(tracked - inside)]
problems += [f"the source distribution holds {name}" for name in sorted(inside - tracked - added)]

with zipfile.ZipFile(wheel) as archive:
    inside = set(archive.namelist())
    described = {Path(name).name for name in inside if ".dist-info/" in name}
package = {name for name in tracked if name.startswith("nnlite/")}
compiled = {name for name in inside if name.startswith("nnlite/_native.")}
problems += [f"the wheel lacks {name}" for name in sorted(package - inside)]
problems += [
    f"the wheel lacks its {name}" for name in sorted({"LICENSE", "METADATA", "entry_points.txt"} - described)
]
rest = {name for name in inside if ".dist-info/" not in name}
problems += [f"the wheel holds {name}" for name in sorted(rest - package - compiled)]
if len(compiled) != 1:
    problems.append(f"the wheel holds {len(compiled)} native extensions")
if "nnlite/py.typed" not in inside:
    problems.append("the wheel lacks py.typed")

for problem in problems:
    print(problem, file=sys.stderr)
print(f"{len(tracked)} files of the repository, {len(rest)} of the package")
sys.exit(bool(problems))
