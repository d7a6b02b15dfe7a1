"""Errors that a user, a file or the network can cause.

A message says what is wrong, with values, and what to do. The command line prints it as one line and ends with
the class's `exit_code`; a Python caller may also catch the nearest built-in class.
"""

import contextlib
import errno
from collections.abc import Iterator
from typing import ClassVar


class ScratchLMError(Exception):
    """Base class of all errors that this package raises."""

    exit_code: ClassVar[int] = 1

    def __str__(self) -> str:
        # KeyError would show the repr of its argument, with quotes around the message.
        return " ".join(str(part) for part in self.args)


class ConfigError(ScratchLMError, ValueError):
    """A setting, flag or recipe is misspelt, out of range or contradicts another."""

    exit_code = 2


class DataError(ScratchLMError, ValueError):
    """Text, a table or a data set is invalid or unusable."""

    exit_code = 3


class TokenizerError(ScratchLMError, ValueError):
    """Text cannot be encoded, ids cannot be decoded, or a tokenizer file is damaged."""

    exit_code = 3


class UnknownWordError(TokenizerError, KeyError):
    """A word tokenizer without an unknown token met a word outside its vocabulary."""


class CheckpointError(ScratchLMError, ValueError):
    """A model folder, checkpoint or weight file is missing, damaged or has unexpected shapes."""

    exit_code = 3


class ServiceError(ScratchLMError, RuntimeError):
    """A service did not respond, or its response does not follow the protocol."""

    exit_code = 4


class DownloadError(ServiceError):
    """A download failed, or its bytes are not the expected ones."""


class RankLostError(ServiceError):
    """Another process of the same training run ended, stopped responding, or cannot be reached."""


class MissingDependencyError(ScratchLMError, ImportError):
    """An optional package is not installed; the message holds the command that installs it."""

    exit_code = 5


@contextlib.contextmanager
def optional_import(need: str, *, extra: str) -> Iterator[None]:
    """Inside it, import packages that only the extra of scratchlm installs; `need` is e.g. "--track needs wandb".

    Raises: MissingDependencyError when one is not installed.
    """
    try:
        yield
    except ImportError as cause:
        raise MissingDependencyError(
            f"{need}, which is not installed; run `pip install 'scratchlm[{extra}]'`."
        ) from cause


class NonFiniteLossError(ScratchLMError, ArithmeticError):
    """The loss, a gradient or a weight became NaN or infinite; training stopped."""

    exit_code = 6


class OutOfMemoryError(ScratchLMError, MemoryError):
    """The model, batch or cache does not fit in memory."""

    exit_code = 6


def writing_advice(cause: OSError) -> str:
    """What to do when a file cannot be written for this reason: an infinitive that completes a message."""
    if cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "free some space"
    if cause.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "choose a folder in which you may write"
    if cause.errno in (errno.ENOENT, errno.ENOTDIR):
        return "its folder is gone, so create it again or choose another"
    return "free some space or choose another folder"
