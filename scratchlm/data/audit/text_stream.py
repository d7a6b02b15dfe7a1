"""Plain text as pre-training reads it: documents end to end, cut into windows, nothing left out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from scratchlm.core.errors import DataError
from scratchlm.data.rows import RowSettings
from scratchlm.data.sources import find_sources, read_pieces

if TYPE_CHECKING:
    from scratchlm.core.protocols import Tokenizer


def stream_figures(
    path: str | Path, tokenizer: Tokenizer | None, settings: RowSettings, *, document_separator: str = ""
) -> dict[str, Any]:
    """Documents, characters, bytes and tokens of one split; `refused` holds what pre-training says against it.

    Tokens are those of the texts alone; pre-training adds one end-of-text after each document.
    """
    n_documents = n_characters = n_bytes = n_tokens = 0
    try:
        for piece in read_pieces(
            find_sources(path),
            rows=settings,
            document_separator=document_separator,
            skip_bad_lines=True,
            on_skip=lambda _: None,
        ):
            n_documents += piece.ends_document
            n_characters += len(piece.text)
            n_bytes += len(piece.text.encode("utf-8"))
            n_tokens += len(tokenizer.encode(piece.text)) if tokenizer is not None else 0
    except DataError as complaint:
        return {"stream": None, "refused": str(complaint)}
    return {
        "stream": {
            "documents": n_documents,
            "characters": n_characters,
            "bytes": n_bytes,
            "tokens": n_tokens if tokenizer is not None else None,
            "bytes_per_token": n_bytes / n_tokens if n_tokens else None,
        },
        "refused": None,
    }
