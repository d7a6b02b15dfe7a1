"""Every error: one family, a built-in cousin, the exit code of DESIGN.md section 6."""

import pytest

from scratchlm.core import errors
from scratchlm.core.errors import ScratchLMError

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
