"""Finished runs, comparisons and data sets as self-contained HTML pages: data collected, checked, drawn."""
