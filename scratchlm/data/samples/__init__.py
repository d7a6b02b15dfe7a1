"""Generate sample data: stories, text messages and instructions that a small model can learn.

Everything is generated from word lists and sentence patterns in this package, with a seeded generator that gives the
same result on every machine. Nothing was collected from people, books or the web; show `SAMPLE_NOTICE` with these
texts.
"""

SAMPLE_NOTICE = (
    "Sample data: these stories, messages and instructions were written for this project by its own "
    "generator; no real person sent, said or published them."
)
