"""`scratchlm bench`: run a benchmark from the folder benchmarks/, which only the source checkout has."""

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from scratchlm.cli.arguments import HELP_FLAGS
from scratchlm.core.config import nearest
from scratchlm.core.errors import ConfigError


def main(args: Sequence[str], *, prog: str) -> int:
    """Run `benchmarks/NAME.py` with the remaining arguments; without a name list the benchmarks."""
    folder = Path(__file__).resolve().parents[2] / "benchmarks"
    known = {path.stem: path for path in sorted(folder.glob("*.py"))} if folder.is_dir() else {}
    if not args or args[0] in HELP_FLAGS:
        print(f"usage: {prog} NAME [flags of that benchmark]\n\nExample: {prog} tokenizer_speed --help\n")
        print("\n".join(f"  {name}" for name in known) or "  (benchmarks are part of the source checkout)")
        return 0
    name, rest = args[0].replace("-", "_"), list(args[1:])
    if not known:
        raise ConfigError(
            f"benchmarks need the source checkout, but {folder} does not exist; clone the project."
        )
    if name not in known:
        raise ConfigError(f"there is no benchmark {args[0]!r}; {nearest(name, known)}")
    sys.path.insert(0, str(folder.parent))
    sys.argv = [f"{prog} {name}", *rest]
    runpy.run_module(f"benchmarks.{name}", run_name="__main__", alter_sys=False)
    return 0
