"""The documentation is true: its code runs, its generated pages are up to date, its links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*/README.md")])


@pytest.mark.parametrize(
    ("page", "blocks_at_least", "printed"),
    [
        ("how-it-works.md", 9, "y = a · b"),
        ("devices.md", 2, "True"),
        ("frozen.md", 4, "bytes in one block"),
        ("pytorch.md", 1, "loss "),
        ("report.md", 5, "classes [0 1]"),
    ],
)
def test_pages_run_from_start_to_end(
    page: str, blocks_at_least: int, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.S)
    assert len(blocks) >= blocks_at_least
    session: dict[str, object] = {}
    for number, block in enumerate(blocks):
        exec(compile(block, f"{page}, block {number}", "exec"), session)
    assert printed in capsys.readouterr().out


def test_generated_pages_are_up_to_date() -> None:
    command = [sys.executable, str(ROOT / "docs" / "make_pages.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing
