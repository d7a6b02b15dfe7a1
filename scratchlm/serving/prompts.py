"""Convert a request's messages or text to the ids that generation starts from, and to its settings."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from scratchlm.data.assistant_prompt import AssistantPrompt, assistant_prompt
from scratchlm.data.chat_template import ChatTemplate
from scratchlm.data.conversations import BETWEEN, Exchange
from scratchlm.data.instruction_rows import Instruction
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.trace import RowTrace
from scratchlm.serving.jobs import RowRequest
from scratchlm.serving.models import ServedModel
from scratchlm.serving.openai_schemas import ChatMessage
from scratchlm.serving.request_errors import RequestError
from scratchlm.tokenizers.special_tokens import encode_from_start, end_ids

SYSTEM_ROLES = ("system", "developer")


class ChatTurn(NamedTuple):
    """One message of a conversation."""

    role: str  # system, developer, user or assistant
    text: str


def text_prompt(model: ServedModel, prompt: str | Sequence[int]) -> AssistantPrompt:
    """A text to continue, or its ids."""
    ids = encode_from_start(model.tokenizer, prompt) if isinstance(prompt, str) else list(prompt)
    return AssistantPrompt(ids, model.stop_ids)


def chat_prompt(model: ServedModel, messages: Sequence[ChatTurn]) -> AssistantPrompt:
    """Encode a conversation in the model's own form, up to where the answer begins.

    Consecutive messages of one role are joined. When the last message is the assistant's, the answer continues it.
    Raises: RequestError for a model without a template and a conversation without a request; what the template raises.
    """
    chosen = model.template
    if chosen is None:
        message = f"{model.id} was not tuned for conversations; use /v1/completions, or name an assistant."
        raise RequestError(message, code="no_chat_template", param="model")
    turns = _joined(messages)
    prefix = turns.pop().text if turns and turns[-1].role == "assistant" else None
    if not turns or turns[-1].role != "user":
        raise RequestError("a conversation needs a user's message; add one.", param="messages")
    if isinstance(chosen, ChatTemplate):
        prompt = _own_prompt(model, chosen, turns)
    else:
        prompt = assistant_prompt(chosen, _instruction(model, turns), model.task, model.tokenizer)
    if prefix is None:
        return prompt
    begun = model.tokenizer.encode(prompt.answer_lead + prefix)
    return prompt._replace(ids=[*prompt.ids, *begun], answer_lead="")


def given_prompt(
    model: ServedModel, prompt: str | Sequence[int] | None, messages: Sequence[ChatMessage] | None
) -> Callable[[], AssistantPrompt]:
    """What encodes the prompt of a request that gives a text, ids or messages; encoding waits until it is called.

    Raises: RequestError, at once, for a model that does not generate, and unless exactly one of the two is given.
    """
    model.check_generates()
    if (prompt is None) == (messages is None):
        raise RequestError("exactly one of prompt and messages must be given.")

    def encode() -> AssistantPrompt:
        if prompt is not None:
            return text_prompt(model, prompt)
        return chat_prompt(model, [ChatTurn(message.role, message.text) for message in messages or ()])

    return encode


def _joined(messages: Sequence[ChatTurn]) -> list[ChatTurn]:
    """The turns with our role names, consecutive ones of one role joined."""
    turns = [turn._replace(role="system") if turn.role in SYSTEM_ROLES else turn for turn in messages]
    groups = itertools.groupby(turns, key=lambda turn: turn.role)
    return [ChatTurn(role, BETWEEN.join(turn.text for turn in group)) for role, group in groups]


def _own_prompt(model: ServedModel, chosen: ChatTemplate, turns: Sequence[ChatTurn]) -> AssistantPrompt:
    """A prompt in the template of the model's own files."""
    ids = chosen.encode([{"role": turn.role, "content": turn.text} for turn in turns], model.tokenizer)
    end = model.turn_end
    ends = end_ids(model.tokenizer, model.task)
    stop_ids = ends if end.id is None else tuple({*ends, end.id})
    return AssistantPrompt(ids, stop_ids, () if end.text is None else (end.text,))


def _instruction(model: ServedModel, turns: Sequence[ChatTurn]) -> Instruction:
    """The conversation as an entry of instruction data, for our own templates."""
    given = [turn.text for turn in turns if turn.role == "system"]
    spoken = _joined([turn for turn in turns if turn.role != "system"])
    if len(spoken) % 2 == 0:
        message = (
            "a conversation must begin with the user's message, got the assistant's; leave that one out."
        )
        raise RequestError(message, param="messages")
    *earlier, last = [turn.text for turn in spoken]
    return Instruction(
        instruction=last,
        input="",
        output="",
        system=BETWEEN.join(given) if given else str(model.task.get("system", "")),
        history=tuple(map(Exchange, earlier[::2], earlier[1::2])),
    )


def rows_of(
    model: ServedModel,
    prompt: AssistantPrompt,
    settings: Mapping[str, Any],
    *,
    max_new_tokens: int | None,
    n: int = 1,
    n_logprobs: int = 0,
    trace: RowTrace | None = None,
    context_length: int | None = None,
) -> list[RowRequest]:
    """`n` rows for one prompt; new tokens end where the context is full.

    settings: further fields of GenerationConfig; its stop texts are added to the prompt's. trace: of the only row.
    Raises: RequestError for a prompt beyond the context, with both counts; ConfigError for an impossible setting.
    """
    limit = min(model.config.context_length, context_length or model.config.context_length)
    n_ids = len(prompt.ids)
    check_length(model, n_ids, limit)
    room = limit - max(n_ids, 1) + 1  # the last token needs no place of its own
    own = {
        "max_new_tokens": room if max_new_tokens is None else min(max_new_tokens, room),
        "stop_ids": prompt.stop_ids,
        "stop_texts": (*prompt.stop_texts, *settings.get("stop_texts", ())),
        "start_id": model.tokenizer.end_of_text_id,
        "overflow": "error",
    }
    config = GenerationConfig(**{**settings, **own})
    if config.logit_bias and (highest := max(config.logit_bias)) >= model.config.vocab_size:
        raise RequestError(
            f"logit_bias: {model.id} has ids 0 to {model.config.vocab_size - 1}, got {highest}; leave it out.",
            param="logit_bias",
        )
    return [
        RowRequest(
            prompt_ids=prompt.ids,
            config=config,
            copy=i,
            lead=prompt.answer_lead,
            n_logprobs=n_logprobs,
            trace=trace,
        )
        for i in range(n)
    ]


def check_length(model: ServedModel, n_ids: int, limit: int) -> None:
    """Raise RequestError, with both counts, for a prompt beyond the context."""
    if n_ids > limit:
        raise RequestError(
            f"the prompt has {n_ids} tokens, but the context of {model.id} holds {limit}; shorten it.",
            code="context_length_exceeded",
        )
