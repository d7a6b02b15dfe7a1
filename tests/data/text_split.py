"""Split texts into training and validation as token shards do."""

from collections.abc import Sequence

from scratchlm.data.document_split import Route, SplitBy, survey_sources
from scratchlm.data.sources import Piece


def split_texts(
    texts: Sequence[str], *, val_fraction: float = 0.1, split_by: SplitBy = "auto"
) -> tuple[list[str], list[str]]:
    """The texts of both sides, in their order."""
    pieces = [Piece(text=text, origin="", ends_document=True) for text in texts]
    survey = survey_sources(lambda on_skip: iter(pieces))
    route = Route.plan(survey, split_by=split_by, val_fraction=val_fraction)
    sides: dict[str, list[str]] = {"train": [], "val": []}
    for job in route.jobs(iter(pieces)):
        sides[job.side] += job.texts
    return sides["train"], sides["val"]
