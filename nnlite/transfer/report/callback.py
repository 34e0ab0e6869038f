"""The report as a callback: it notes where the run takes place, and writes when all is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnlite import memory
from nnlite.errors import NnliteError
from nnlite.transfer.callbacks import Callback
from nnlite.transfer.report.environment import describe_environment

if TYPE_CHECKING:
    from nnlite.transfer.job import Job
    from nnlite.transfer.run import FinetuneResult


class ReportWriter(Callback):
    """Writes ``environment.json`` and, where the configuration wants it, ``report.html``."""

    def on_end(self, job: Job, result: FinetuneResult) -> None:
        """Peak memory is that of the run: it is read before the report is made."""
        noted = describe_environment() | {"peak_memory": memory.peak_resident()}
        job.run.write_json("environment.json", noted)
        if not job.config.report:
            return
        from nnlite.transfer.report.page import write_report

        try:
            write_report(job.run.path, pictures=job.config.pictures, maps=job.holding.maps)
        except NnliteError as error:  # the run itself is done and written
            job.say(f"no report: {error}")
