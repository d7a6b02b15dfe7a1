"""Every error: one family, a built-in cousin, the exit code of DESIGN.md section 6."""

import errno

import pytest

from scratchlm.core import errors
from scratchlm.core.errors import ScratchLMError
from scratchlm.training.history import History

EXIT_CODES = {  # DESIGN.md, section 6
    "ConfigError": (2, ValueError),
    "DataError": (3, ValueError),
    "TokenizerError": (3, ValueError),
    "UnknownWordError": (3, KeyError),
    "CheckpointError": (3, ValueError),
    "ServiceError": (4, RuntimeError),
    "DownloadError": (4, RuntimeError),
    "RankLostError": (4, RuntimeError),
    "MissingDependencyError": (5, ImportError),
    "NonFiniteLossError": (6, ArithmeticError),
    "OutOfMemoryError": (6, MemoryError),
}


@pytest.mark.parametrize(("name", "expected"), EXIT_CODES.items())
def test_an_error_has_its_exit_code_and_its_built_in_cousin(name, expected):
    exit_code, built_in = expected
    error = getattr(errors, name)
    assert issubclass(error, ScratchLMError)
    assert issubclass(error, built_in)
    assert error.exit_code == exit_code


def test_no_error_is_missing_from_the_table():
    defined = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and value is not ScratchLMError
    }
    assert {name for name in defined if issubclass(getattr(errors, name), ScratchLMError)} == set(EXIT_CODES)


@pytest.mark.parametrize("name", EXIT_CODES)
def test_the_message_is_the_sentence_and_not_its_repr(name):
    message = "expected 'a', found 'b'; do c."
    assert str(getattr(errors, name)(message)) == message


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EROFS, "choose a folder in which you may write"),
        (errno.ENOENT, "its folder is gone, so create it again or choose another"),
        (errno.EIO, "free some space or choose another folder"),
    ],
)
def test_the_advice_fits_the_reason_why_a_file_cannot_be_written(number, advice):
    assert errors.writing_advice(OSError(number, "reason")) == advice


def test_a_log_whose_folder_was_removed_is_not_called_a_full_disk(tmp_path):
    history = History(tmp_path / "gone" / "metrics.jsonl")
    with pytest.raises(errors.DataError, match="No such file or directory; its folder is gone"):
        history.append({"step": 1})
