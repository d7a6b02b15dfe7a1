"""Load a trained model, generate text with it, and classify with it."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, overload

from scratchlm.checkpoints.open_model import open_model
from scratchlm.core.config import from_dict
from scratchlm.core.device import pick_device
from scratchlm.core.errors import ConfigError, DataError
from scratchlm.core.protocols import Tokenizer
from scratchlm.data.assistant_prompt import (
    AssistantPrompt,
    assistant_prompt,
    chosen_template,
    supports_conversations,
)
from scratchlm.data.conversations import Exchange
from scratchlm.data.instruction_rows import Instruction
from scratchlm.finetuning.classification_task import Prediction, Threshold, predict
from scratchlm.finetuning.input_format import InputFormat
from scratchlm.generation.beam import beam_search
from scratchlm.generation.best_of import best_of
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.contrastive import contrastive_search
from scratchlm.generation.engine import Engine
from scratchlm.generation.generate import generate, generate_on
from scratchlm.generation.requests import TokenEvent
from scratchlm.generation.text_stream import without_lead
from scratchlm.model.config import GPTConfig
from scratchlm.model.gpt import GPTModel
from scratchlm.tokenizers.special_tokens import encode_from_start, end_ids


class LanguageModel:
    """Model, tokenizer, config and task together, as `scratchlm.load` returns them.

    `model` is the plain nn.Module: ids (B, T) -> logits (B, T, V).
    """

    def __init__(self, model: GPTModel, tokenizer: Tokenizer, *, task: dict[str, Any], folder: Path) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.task = task
        self.folder = folder

    @property
    def config(self) -> GPTConfig:
        """The configuration of the model."""
        return self.model.config

    @property
    def kind(self) -> str:
        """`classification`, `instruction`, or `language model`."""
        return str(self.task.get("kind", "language model"))

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The ids that end generation, from the model's files; by default end-of-text."""
        return end_ids(self.tokenizer, self.task)

    def check_generates(self, who: str, *, advice: str = "") -> None:
        """Check that this model predicts tokens, which `who` needs, and not classes.

        Raises: ConfigError for a classifier.
        """
        if self.kind == "classification":
            raise ConfigError(f"{who} needs a language model, but {self.folder} is a classifier{advice}.")

    def stage_beside(self, stage: str) -> Path | None:
        """The folder of another stage of this model's run, `RUN/classify` or `RUN/instruct`, if it exists."""
        run = self.folder.parent.parent  # of RUN/checkpoints/step-...
        return run / stage if (run / stage / "checkpoints").is_dir() else None

    @overload
    def generate(
        self,
        prompt: str,
        *,
        stream: Literal[False] = False,
        beams: int | None = None,
        length_penalty: float = 1.0,
        **settings: object,
    ) -> str: ...

    @overload
    def generate(
        self,
        prompt: str,
        *,
        stream: Literal[True],
        beams: int | None = None,
        length_penalty: float = 1.0,
        **settings: object,
    ) -> Iterator[str]: ...

    def generate(
        self,
        prompt: str,
        *,
        stream: bool = False,
        beams: int | None = None,
        length_penalty: float = 1.0,
        **settings: object,
    ) -> str | Iterator[str]:
        """Continue a prompt; returns the new text, or with `stream` an iterator of its pieces.

        `settings` are the fields of GenerationConfig: max_new_tokens, temperature, top_k, top_p, seed, ...
        Generation stops at the model's stop ids unless `stop_ids` names others. `beams` is the number of sequences that
        beam search keeps; its result is known only at the end and cannot be streamed. `length_penalty` ranks the beams.
        Raises: ConfigError for an unknown or impossible setting, and for a classifier.
        """
        self.check_generates("generate", advice="; use classify")
        config = self.generation_config(**settings)
        if beams is not None and stream:
            raise ConfigError(
                "beam search cannot be streamed, got beams and stream=True; leave one of them out."
            )
        pieces = self._pieces(self.encode_prompt(prompt), config, beams=beams, length_penalty=length_penalty)
        return pieces if stream else "".join(pieces)

    def _pieces(
        self,
        ids: list[int],
        config: GenerationConfig,
        *,
        beams: int | None,
        length_penalty: float,
        on_event: Callable[[TokenEvent], None] = lambda event: None,
        engine: Engine | None = None,
    ) -> Iterator[str]:
        """The new text in pieces, by the decoder that the settings choose; searches of whole texts give one piece."""
        if beams is not None:
            found = beam_search(
                self.model,
                ids,
                config,
                n_beams=beams,
                length_penalty=length_penalty,
                tokenizer=self.tokenizer,
            )
            return iter([found[0].text])
        if config.best_of is not None:
            return iter([best_of(self.model, ids, config, tokenizer=self.tokenizer)[0].text])
        if config.penalty_alpha is not None:
            events = contrastive_search(self.model, ids, config, tokenizer=self.tokenizer)
        elif engine is not None:
            events = generate_on(engine, ids, config, tokenizer=self.tokenizer)
        else:
            events = generate(self.model, [ids], config, tokenizer=self.tokenizer)
        return _texts(events, on_event)

    def encode_prompt(self, prompt: str) -> list[int]:
        """The ids of a prompt, with the begin-of-text token if the tokenizer has one."""
        return encode_from_start(self.tokenizer, prompt)

    def classify(self, texts: Sequence[str], *, batch_size: int = 64) -> list[Prediction]:
        """Label and probability of each text, in order.

        Raises: ConfigError when the model is not a classifier; DataError for an empty text, or anything but a
        list of texts.
        """
        if self.kind != "classification":
            raise ConfigError(
                f"classify needs a classifier, but this model is a {self.kind}; "
                f"name {self.stage_beside('classify') or 'the folder of a classifier'}."
            )
        if isinstance(texts, str):
            raise DataError(f"classify needs a list of texts, got one text; write classify([{texts!r:.40}]).")
        for number, text in enumerate(texts):
            if not isinstance(text, str):
                raise DataError(
                    f"classify needs a list of texts, got {text!r:.40} ({type(text).__name__}) as number {number}; "
                    "give each as a str."
                )
        threshold = self.task.get("threshold")
        return predict(
            texts,
            self.model,
            self.tokenizer,
            self.class_names,
            InputFormat.from_task(self.task),
            batch_size=batch_size,
            threshold=None if threshold is None else from_dict(Threshold, threshold, where="task.json"),
        )

    @property
    def class_names(self) -> list[str]:
        """A classifier's classes, in the order of its scores; [] for any other model."""
        classes: list[str] = self.task.get("classes", [])
        return classes

    def ask(self, instruction: str, **settings: Any) -> str:
        """The complete answer of an assistant; settings and errors are those of `stream_answer`."""
        return "".join(self.stream_answer(instruction, **settings))

    def stream_answer(
        self,
        instruction: str,
        *,
        input: str = "",  # noqa: A002
        system: str | None = None,
        history: Sequence[tuple[str, str]] = (),
        template_name: str | None = None,
        max_new_tokens: int = 128,
        **settings: Any,
    ) -> Iterator[str]:
        """Yield the answer in pieces; settings and errors are those of `answer_prompt` and `answer_pieces`."""
        prompt = self.answer_prompt(
            instruction,
            input=input,
            system=system,
            history=history,
            template_name=template_name,
            max_new_tokens=max_new_tokens,
        )
        return self.answer_pieces(prompt, max_new_tokens=max_new_tokens, **settings)

    def answer_prompt(
        self,
        instruction: str,
        *,
        input: str = "",  # noqa: A002
        system: str | None = None,
        history: Sequence[tuple[str, str]] = (),
        template_name: str | None = None,
        max_new_tokens: int = 128,
    ) -> AssistantPrompt:
        """Encode a request to an assistant, with the earlier exchanges that leave room for max_new_tokens.

        The prompt uses the template of the fine-tuning here, or the chat template in the model's files; `template_name`
        selects one of ours instead. `system` is the system prompt; None means the one used in training. `history` holds
        the earlier requests and answers of a conversation; the oldest are dropped when the context is too short, and
        `n_dropped` of the result counts them.
        Raises: ConfigError for a model without a template; DataError for a conversation that its template rejects;
            CheckpointError for a template that does not work.
        """
        chosen = chosen_template(self.task, template_name)
        if chosen is None or self.kind == "classification":
            raise ConfigError(
                f"ask needs an assistant, but this model is a {self.kind}; "
                f"name {self.stage_beside('instruct') or 'the folder of an assistant'}."
            )
        entry = Instruction(
            instruction=instruction,
            input=input,
            output="",
            system=str(self.task.get("system", "")) if system is None else system,
            history=tuple(Exchange(*exchange) for exchange in history),
        )
        room = self.config.context_length - max_new_tokens
        return assistant_prompt(chosen, entry, self.task, self.tokenizer, n_tokens=room)

    def answer_pieces(
        self,
        prompt: AssistantPrompt,
        *,
        max_new_tokens: int = 128,
        beams: int | None = None,
        length_penalty: float = 1.0,
        on_event: Callable[[TokenEvent], None] = lambda event: None,
        engine: Engine | None = None,
        **settings: object,
    ) -> Iterator[str]:
        """Yield the answer to an encoded request in pieces.

        `beams`, `length_penalty` and `settings` are those of `generate`; stop texts are added to the template's.
        `on_event` sees each token with its probability, unless the decoder compares whole texts. `engine` is an idle
        engine on this model to generate with; one that is kept for a conversation reads only what is new in each turn.
        Raises: ConfigError for an impossible setting.
        """
        stop_texts = (*prompt.stop_texts, *settings.pop("stop_texts", ()))  # type: ignore[misc]
        config = self.generation_config(
            max_new_tokens=max_new_tokens, stop_ids=prompt.stop_ids, stop_texts=stop_texts, **settings
        )
        pieces = self._pieces(
            prompt.ids, config, beams=beams, length_penalty=length_penalty, on_event=on_event, engine=engine
        )
        return without_lead(pieces, prompt.answer_lead)

    @property
    def supports_conversations(self) -> bool:
        """Whether this assistant supports conversations of several turns, from training here or by its own template."""
        return supports_conversations(self.task)

    def generation_config(self, **settings: object) -> GenerationConfig:
        """Complete the settings with this model's stop ids and start id.

        Raises: ConfigError for an unknown setting, with the nearest known one.
        """
        if "stop" in settings:
            raise ConfigError(
                f"generate has no setting 'stop', got stop={settings['stop']!r}; use stop_texts=('...',) for texts or "
                "stop_ids=(...,) for ids."
            )
        known = {"stop_ids": self.stop_ids, "start_id": self.tokenizer.end_of_text_id}
        return from_dict(GenerationConfig, {**known, **settings}, where="generate")


def _texts(events: Iterator[TokenEvent], on_event: Callable[[TokenEvent], None]) -> Iterator[str]:
    for event in events:
        on_event(event)
        yield event.text


def load(path: str | Path, *, device: str = "auto") -> LanguageModel:
    """Open a model folder, a run folder (its best checkpoint, or `RUN/best`, `RUN/last`), a Hugging Face folder,
    OpenAI's checkpoint, a `.gguf` file or a file of weights.

    Raises: CheckpointError when there is no valid model.
    """
    loaded = open_model(path)
    model = loaded.model.to(pick_device(device))
    return LanguageModel(model, loaded.tokenizer, task=loaded.task, folder=loaded.folder)
