"""``report.html``: what a run did, in one file to look at.

run folder ─▶ record ─▶ sections ─▶ page
(JSON files)           (tables, charts, pictures with maps)

The page needs no network and runs no script; it is made of what the run folder says, so that ``nnlite
report RUN`` can write it again. Nothing of it is imported before a page is written.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnlite.transfer.report.callback import ReportWriter
    from nnlite.transfer.report.page import report_page, write_report
    from nnlite.transfer.report.record import RunRecord

_HOME = {
    "ReportWriter": "callback",
    "RunRecord": "record",
    "report_page": "page",
    "write_report": "page",
}

__all__ = ["ReportWriter", "RunRecord", "report_page", "write_report"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'nnlite.transfer.report' has no attribute {name!r}")
    return getattr(import_module(f"nnlite.transfer.report.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
