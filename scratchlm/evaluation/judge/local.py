"""Use a model that scratchlm can open as the judge, in this process."""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from scratchlm.checkpoints.fingerprint import weights_fingerprint
from scratchlm.checkpoints.open_model import open_model
from scratchlm.checkpoints.store import own_weights
from scratchlm.core.device import pick_device
from scratchlm.core.errors import ConfigError, DataError, ServiceError
from scratchlm.data.assistant_prompt import AssistantPrompt, assistant_prompt, chosen_template
from scratchlm.data.conversations import Exchange
from scratchlm.data.instruction_rows import Instruction
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.generate import generate_ids
from scratchlm.tokenizers.special_tokens import encode_from_start, end_ids

MAX_NEW_TOKENS = 256  # of a reply


class LocalJudge:
    """A model folder, run folder or foreign model as a judge, with its own chat template and greedy decoding.

    A plain language model continues the conversation as plain text. One reply is generated at a time; other
    threads wait.
    Raises: CheckpointError when there is no model; ConfigError for a classifier.
    """

    def __init__(
        self, path: str | Path, *, device: str = "auto", max_new_tokens: int = MAX_NEW_TOKENS
    ) -> None:
        loaded = open_model(path)
        kind = str(loaded.task.get("kind", "language model"))
        if kind == "classification":
            raise ConfigError(
                f"a judge must be a language model, and {loaded.folder} holds a classifier; name another folder."
            )
        self.path = str(path)
        self.max_new_tokens = max_new_tokens
        self._fingerprint = weights_fingerprint(own_weights(loaded.model))
        self._model = loaded.model.to(pick_device(device))
        self._tokenizer = loaded.tokenizer
        self._template = chosen_template(loaded.task)
        self._task = loaded.task
        self._system = str(loaded.task.get("system", ""))
        self._one_at_a_time = threading.Lock()

    @property
    def name(self) -> str:
        """`local:PATH`."""
        return f"local:{self.path}"

    @property
    def identity(self) -> str:
        """Kind, fingerprints of weights and tokenizer, template and length, not the folder's path."""
        chosen = "none" if self._template is None else self._template.name
        return (
            f"local weights={self._fingerprint} tokenizer={self._tokenizer.fingerprint} template={chosen} "
            f"max_new_tokens={self.max_new_tokens}"
        )

    def ask(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Return the whole reply, marked as truncated if it does not end within max_new_tokens.

        So a number at the end of a truncated reply is not taken for a complete one.

        Raises: ServiceError when the request does not fit the context; DataError for a conversation that does not
            end with the user.
        """
        asked = self._prompt(messages)
        room = self._model.config.context_length - len(asked.ids)
        if room < 1:
            raise ServiceError(
                f"a request of {len(asked.ids)} tokens does not fit the context of {self.name}, "
                f"{self._model.config.context_length} tokens; use a judge with a longer context, or shorter answers."
            )
        limit = min(room, self.max_new_tokens)
        config = GenerationConfig(max_new_tokens=limit, stop_ids=asked.stop_ids, stop_texts=asked.stop_texts)
        with self._one_at_a_time:
            [result] = generate_ids(self._model, [asked.ids], config, tokenizer=self._tokenizer)
        end = f" [cut off after {limit} tokens]" if result.finished_by == "length" else ""
        return result.text.removeprefix(asked.answer_lead) + end

    def _prompt(self, messages: Sequence[Mapping[str, str]]) -> AssistantPrompt:
        if not messages or messages[-1]["role"] != "user":
            raise DataError(
                f"a judge's conversation must end with the user's message, got {[m['role'] for m in messages]}; add it."
            )
        if self._template is None:
            words = "\n\n".join(message["content"] for message in messages)
            return AssistantPrompt(
                encode_from_start(self._tokenizer, words), end_ids(self._tokenizer, self._task)
            )
        return assistant_prompt(self._template, self._as_instruction(messages), self._task, self._tokenizer)

    def _as_instruction(self, messages: Sequence[Mapping[str, str]]) -> Instruction:
        system = [message["content"] for message in messages if message["role"] == "system"]
        turns = [message for message in messages if message["role"] != "system"]
        roles = [message["role"] for message in turns]
        if roles != ["user", "assistant"] * (len(turns) // 2) + ["user"]:
            raise DataError(
                f"a judge's conversation must alternate user, assistant, user, ..., got {roles}; reorder it."
            )
        texts = [message["content"] for message in turns]
        return Instruction(
            instruction=texts[-1],
            input="",
            output="",
            system="\n\n".join(system) or self._system,
            history=tuple(Exchange(*pair) for pair in zip(texts[:-1:2], texts[1:-1:2])),
        )
