"""Write reports of finished runs, comparisons and data sets as self-contained HTML pages, JSON, CSV and plots."""
