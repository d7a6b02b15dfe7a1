"""Read a judge's prompt, a TOML file that users can copy and edit, and fill in its placeholders.

A file has `question` and `reminder`, optionally `system`, and for a checklist `questions`. The placeholders are {task}
{reference} {answer} (or {answer_a} {answer_b}) for the texts between marks, {code} for the code of the marks,
{reply_code} for the code that a reply must contain, {questions} and {reply_lines} for the lines of a checklist.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from scratchlm.core.config import from_dict, nearest
from scratchlm.core.errors import ConfigError
from scratchlm.core.files import read_utf8
from scratchlm.core.toml_tables import parse_toml

NAME = re.compile(r"\{([a-z_]+)\}")
MAX_PROMPT_BYTES = 1 << 20
_ONE = (frozenset({"task", "answer"}), frozenset({"reply_code"}))
NEEDED = {  # placeholders of question and reminder by protocol; reference and code are optional
    "score": _ONE,
    "rubric": _ONE,
    "pairwise": (frozenset({"task", "answer_a", "answer_b", "reply_code"}), frozenset({"reply_code"})),
    "checklist": (frozenset({"task", "answer", "questions", "reply_lines"}), frozenset({"reply_lines"})),
}
ALLOWED = {  # in the question
    name: question | {"reference", "code"} | (set() if question == _ONE[0] else {"reply_code"})
    for name, (question, _) in NEEDED.items()
}


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgePrompt:
    """The texts of a judge's prompt, with placeholders."""

    question: str
    reminder: str  # sent after a reply that is not a score
    system: str = ""  # the system message; "" = none
    questions: tuple[str, ...] = ()  # of a checklist

    @property
    def sha256(self) -> str:
        """Hex digest of all texts, which identifies the prompt in a result file."""
        parts = [self.system, self.question, self.reminder, *self.questions]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def packaged_prompt(protocol: str) -> str:
    """Return the text of a protocol's packaged prompt file, for display or copying."""
    file = resources.files("scratchlm.evaluation.judge").joinpath("prompts").joinpath(f"{protocol}.toml")
    return file.read_text(encoding="utf-8")


def read_prompt(protocol: str, path: str | Path | None = None) -> JudgePrompt:
    """Load a protocol's prompt: the packaged one, or a user's file.

    Raises: ConfigError naming the file for invalid TOML, an unknown or missing key, and an unknown or missing
        placeholder.
    """
    where = f"the prompt {protocol}.toml" if path is None else str(path)
    if path is None:
        text = packaged_prompt(protocol)
    else:
        text = read_utf8(path, max_bytes=MAX_PROMPT_BYTES, error=ConfigError)
    values = parse_toml(text, where=where, advice="start from `--show-prompt`")
    prompt = from_dict(JudgePrompt, values, where=where)
    needed, needed_again = NEEDED[protocol]
    _check_names(prompt.question, needed=needed, allowed=ALLOWED[protocol], where=f"{where}, question")
    _check_names(prompt.reminder, needed=needed_again, allowed=needed_again, where=f"{where}, reminder")
    _check_names(prompt.system, needed=frozenset(), allowed=frozenset(), where=f"{where}, system")
    if bool(prompt.questions) != (protocol == "checklist"):
        raise ConfigError(
            f"{where} must have a list of questions for the checklist protocol only, got {len(prompt.questions)} "
            f"questions for {protocol}; start from `--show-prompt`."
        )
    return prompt


def fill_in(template: str, values: Mapping[str, str]) -> str:
    """Replace each placeholder once; braces in the inserted texts are unchanged.

    Example:
        >>> fill_in("{task} {code}", {"task": "Print {code}.", "code": "x"})
        'Print {code}. x'
    """
    return NAME.sub(lambda found: values[found[1]], template).strip()


def _check_names(template: str, *, needed: frozenset[str], allowed: frozenset[str], where: str) -> None:
    found = set(NAME.findall(template))
    for name in sorted(found - allowed):
        raise ConfigError(
            f"{where} has the unknown placeholder {{{name}}}; {nearest(name, allowed) if allowed else 'remove it.'}"
        )
    for name in sorted(needed - found):
        raise ConfigError(
            f"{where} must contain {{{name}}}, got only {sorted(found)}; start from `--show-prompt`."
        )
