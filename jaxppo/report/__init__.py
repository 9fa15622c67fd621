"""The report of a run: charts and one self-contained HTML page."""

from jaxppo.report.html import write_report

__all__ = ["write_report"]
