"""What a person looks at: `build_report` makes a run one HTML page, `preview` draws what a stage did."""

from ppt.report.gather import ReportError
from ppt.report.page import build_report

__all__ = ["ReportError", "build_report"]
