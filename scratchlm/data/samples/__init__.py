"""Sample data written for this project: stories, text messages and instructions that a small model can learn.

Everything here comes out of a seeded generator: word lists and sentence patterns in this package, chosen by
dice that fall the same way on every machine. Nothing was collected from people, books or the web. Say so
wherever these texts are shown: that is what `SAMPLE_NOTICE` is for.

The modules that make the texts need nothing but the standard library.
"""

from __future__ import annotations

SAMPLE_NOTICE = (
    "Sample data: these stories, messages and instructions were written for this project by its own "
    "generator; no real person sent, said or published them."
)
