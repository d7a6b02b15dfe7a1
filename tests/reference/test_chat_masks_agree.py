"""Which tokens of a conversation carry loss: ours beside transformers' assistant mask."""

import pytest

from scratchlm.core.batch import IGNORE_INDEX
from scratchlm.data.instruction_batches import InstructionExamples
from scratchlm.data.instruction_rows import instruction_of
from scratchlm.data.prompt_templates import template
from scratchlm.data.row_fields import RowNotes
from scratchlm.tokenizers import END_OF_TEXT, train_bpe

transformers = pytest.importorskip("transformers")

# The formats written down here as chat templates, so that ours are not compared with themselves. An answer and the
# mark that ends it are what the assistant writes.
CHATML = (
    "{% for m in messages %}{% if not loop.first %}{{ '\n' }}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ m['content'] + '<|im_end|>' }}{% endif %}{% endfor %}"
)
PHI3 = (
    "{% for m in messages %}{% if not loop.first %}{{ '\n' }}{% endif %}{{ '<|' + m['role'] + '|>\n' }}"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] + '<|endoftext|>' }}{% endgeneration %}"
    "{% else %}{{ m['content'] }}{% endif %}{% endfor %}"
)
LLAMA3 = (
    "{% for m in messages %}{% if loop.first %}{{ '<|begin_of_text|>' }}{% endif %}"
    "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' }}"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] + '<|eot_id|>' }}{% endgeneration %}"
    "{% else %}{{ m['content'] + '<|eot_id|>' }}{% endif %}{% endfor %}"
)
ALPACA = (
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}{% else %}{{ 'Below is an instruction that "
    "describes a task. Write a response that appropriately completes the request.' }}{% endif %}"
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '\n\n### Instruction:\n' + m['content'] }}"
    "{% elif m['role'] == 'assistant' %}{{ '\n\n### Response:\n' }}"
    "{% generation %}{{ m['content'] + '<|endoftext|>' }}{% endgeneration %}{% endif %}{% endfor %}"
)
CONVERSATIONS = [
    [("system", "Count."), ("user", "One?"), ("assistant", "1"), ("user", "Two, please"), ("assistant", "2 of them.")],
    [("user", "Hi"), ("assistant", "Hello there"), ("user", "Bye"), ("assistant", "Bye.")],
    [("user", "Naïve ☃?"), ("assistant", "Yes: ☃\nand more")],
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "chat_template"), [("chatml", CHATML), ("phi3", PHI3), ("llama3", LLAMA3), ("alpaca", ALPACA)]
)
@pytest.mark.parametrize("turns", CONVERSATIONS)
def test_ids_and_loss_of_a_conversation_are_those_of_transformers(tmp_path, name, chat_template, turns):
    chosen = template(name)
    ours = train_bpe(
        ["One two Hello there system user assistant ### Instruction Response"] * 2,
        320,
        special_tokens=[END_OF_TEXT, *chosen.marks],
    )
    ours.save(tmp_path / "tokenizer.json")
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    messages = [{"role": role, "content": text} for role, text in turns]
    expected = theirs.apply_chat_template(
        messages, chat_template=chat_template, return_assistant_tokens_mask=True, return_dict=True
    )
    entry = instruction_of({"messages": messages}, where="here", notes=RowNotes())
    batch = InstructionExamples([entry], ours, template=chosen).batch([0])
    inputs, targets = batch.inputs[0].tolist(), batch.targets[0].tolist()
    assert [*inputs, targets[-1]] == expected["input_ids"]
    assert [False, *(target != IGNORE_INDEX for target in targets)] == [
        bool(mask) for mask in expected["assistant_masks"]
    ]
