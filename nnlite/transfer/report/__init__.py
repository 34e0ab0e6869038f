"""``report.html``: what a run did, in one file to look at.

run folder ─▶ record ─▶ sections ─▶ page
(JSON files)           (tables, charts, pictures with maps)

The page needs no network and runs no script; it is made of what the run folder says, so that ``nnlite
report RUN`` can write it again.
"""

from nnlite.transfer.report.callback import ReportWriter
from nnlite.transfer.report.page import report_page, write_report
from nnlite.transfer.report.record import RunRecord

__all__ = ["ReportWriter", "RunRecord", "report_page", "write_report"]
