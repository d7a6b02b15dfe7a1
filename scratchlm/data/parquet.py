"""Read rows of Parquet files with pyarrow, which is optional."""

import contextlib
import gzip
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from scratchlm.core.errors import DataError, optional_import
from scratchlm.data.text_files import READ_BYTES, opened


def read_parquet(path: Path, *, columns: Collection[str] = ()) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield each row as a dictionary with its place, holding one batch in memory at a time.

    columns: the columns to read; () reads all.
    Raises: MissingDependencyError without pyarrow; DataError for a damaged file, or one without the columns.
    """
    with optional_import(f"{path} is a parquet file and needs pyarrow", extra="hub"):
        import pyarrow
        import pyarrow.parquet
    try:
        with opened(path) as source, contextlib.ExitStack() as stack:
            file: Any = source
            if isinstance(file, gzip.GzipFile):  # decompressed first, because parquet is read from its end
                unzipped = stack.enter_context(tempfile.TemporaryFile())
                while data := file.read(READ_BYTES):
                    unzipped.write(data)
                unzipped.seek(0)
                file = unzipped
            table = pyarrow.parquet.ParquetFile(file)
            names = table.schema_arrow.names
            chosen = [name for name in names if name in columns] or None
            if columns and chosen is None:
                raise DataError(
                    f"{path} has no field {', '.join(map(repr, columns))} (its fields: "
                    f"{', '.join(map(repr, names)) or 'none'}); name the one that holds the text (--text-field)."
                )
            read = chosen or names
            twice = [name for name in read if read.count(name) > 1]
            if twice:
                raise DataError(
                    f"{path} must have differently named columns, got {twice[0]!r} twice; rename one."
                )
            number = 0
            for batch in table.iter_batches(batch_size=1024, columns=chosen):
                for row in batch.to_pylist():
                    number += 1
                    yield row, f"{path} row {number}"
    except (pyarrow.ArrowException, ValueError, OverflowError) as cause:
        if isinstance(cause, DataError):
            raise
        raise DataError(f"{path} is not a complete parquet file ({cause}); copy it again.") from cause
