"""Read TOML: text of a user's file, and the tables that belong to this package."""

import sys
from importlib import resources
from typing import Any

from scratchlm.core.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # the same library, before it became part of Python


def parse_toml(text: str, *, where: str, advice: str = "repair that line") -> dict[str, Any]:
    """Parse TOML.

    Raises: ConfigError naming `where` and the line of the error.
    """
    try:
        values: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as cause:
        raise ConfigError(f"{where} is not valid TOML: {cause}; {advice}.") from cause
    return values


def package_table(package: str, name: str) -> dict[str, Any]:
    """Read a TOML file that lies beside the modules of a package of ours."""
    text = resources.files(package).joinpath(name).read_text(encoding="utf-8")
    return parse_toml(text, where=f"{package}/{name}")
