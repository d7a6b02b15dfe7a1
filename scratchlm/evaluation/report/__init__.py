"""The page that tells what one run did: `render_report(data)` returns one self-contained HTML document."""

from scratchlm.evaluation.report.page import render_report

__all__ = ["render_report"]
