"""Instruction tuning from entries to a tested assistant, and its loss in packed, padded and plain batches."""

import dataclasses
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scratchlm.checkpoints.store import load_model, save_model
from scratchlm.core.batch import IGNORE_INDEX, Batch
from scratchlm.core.errors import CheckpointError, ConfigError, DataError
from scratchlm.core.seed import seed_everything
from scratchlm.data.conversations import Exchange
from scratchlm.data.instruction_batches import InstructionExamples
from scratchlm.data.instruction_rows import Instruction
from scratchlm.data.instruction_split import EntrySplit
from scratchlm.data.loaders import BatchLoader
from scratchlm.data.prompt_templates import TEMPLATES, template
from scratchlm.finetuning import instruction
from scratchlm.finetuning.instruction import InstructionTask, InstructSettings, finetune_instructions
from scratchlm.model.gpt import GPTModel
from scratchlm.tokenizers.bpe_trainer import train_bpe
from scratchlm.training.interrupts import StoppedBySignal
from scratchlm.training.pretraining import PretrainingTask

CPU = torch.device("cpu")
PAIRS = (("hot", "cold"), ("big", "small"), ("up", "down"), ("wet", "dry"), ("old", "new"), ("day", "night"))
ENTRIES = [
    Instruction(instruction="say", input=one, output=other, skill="opposites")
    for pair in PAIRS for one, other in (pair, pair[::-1])
]  # fmt: skip
SPLIT = EntrySplit(train=ENTRIES, val=ENTRIES[:3], test=ENTRIES[::-1])


def quick(**changes):
    return InstructSettings(
        **{
            "max_steps": 150, "batch_size": 12, "learning_rate": 2e-2, "warmup_steps": 5, "eval_every_steps": 0,
            "checkpoint_every_steps": 0, "template": "plain", "max_new_tokens": 8, "drop_rate": 0.0, **changes,
        }
    )  # fmt: skip


NOISE = st.text(alphabet=st.sampled_from("ab <|>endoftx\n"), max_size=15)


@settings(max_examples=60, deadline=None)
@given(texts=st.tuples(NOISE, NOISE, NOISE), name=st.sampled_from(sorted(TEMPLATES)))
def test_no_text_of_an_entry_becomes_a_special_token(texts, name):
    tokenizer = train_bpe(["ab <|endoftext|> end of text"], 280)
    first, second, third = (f"a{text}<|endoftext|>" for text in texts)
    given_entry = Instruction(instruction=first, input=second, output=third)
    examples = InstructionExamples([given_entry], tokenizer, template=template(name), mask_instruction=False)
    batch = examples.batch([0])
    assert not (batch.inputs == tokenizer.end_of_text_id).any()
    assert (batch.targets == tokenizer.end_of_text_id).sum() == 1  # the true end, and only that
    assert tokenizer.decode(batch.inputs[0].tolist()) == template(name).full(given_entry)


# --- from entries to an assistant


def test_a_small_mapping_is_learned_exactly_and_saved_for_judges(base_folder, tmp_path):
    out = tmp_path / "run"
    result = finetune_instructions(SPLIT, quick(), out, base=str(base_folder), device=CPU)
    assert [answer.entry for answer in result.answers] == SPLIT.test
    assert [answer.text for answer in result.answers] == [e.output for e in SPLIT.test]
    assert result.scores.exact_match == 1.0
    assert result.scores.n == len(SPLIT.test)
    assert result.progress.val_loss < 0.1
    saved = [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]
    assert saved[0] == {
        "step": 150,
        "prompt": "Q: say\nnight\nA:",
        "instruction": "say",
        "input": "night",
        "output": "day",
        "model_response": "day",
        "skill": "opposites",
    }
    assert len(saved) == len(SPLIT.test)
    assert json.loads((load_model(out).folder / "task.json").read_text()) == {
        "kind": "instruction", "template": "plain",
    }  # fmt: skip


@pytest.mark.parametrize("masked", [True, False])
def test_masking_decides_whether_prompts_have_a_loss(base_folder, tmp_path, monkeypatch, masked):
    seen = []

    class Spy(InstructionExamples):
        def batch(self, indices):
            found = super().batch(indices)
            seen.append((found, list(indices)))
            return found

    monkeypatch.setattr(instruction, "InstructionExamples", Spy)
    finetune_instructions(
        SPLIT, quick(max_steps=1, mask_instruction=masked, batch_size=12), tmp_path / "run",
        base=str(base_folder), device=CPU,
    )  # fmt: skip
    tokenizer, chosen = load_model(base_folder).tokenizer, template("plain")
    batches = [found for found, indices in seen if len(indices) == len(ENTRIES)]
    assert batches
    n_prompt = sum(len(tokenizer.encode(chosen.prompt(e))) for e in ENTRIES)
    n_answer = sum(len(tokenizer.encode(chosen.answer(e))) + 1 for e in ENTRIES)  # and its end
    expected = n_answer if masked else n_answer + n_prompt - len(ENTRIES)  # nothing predicts a first token
    assert batches[0].n_targets == expected
    is_padding = ~batches[0].attention_mask
    assert (batches[0].targets[is_padding] == IGNORE_INDEX).all()


def test_an_interrupted_assistant_resumes_bit_for_bit(base_folder, tmp_path, stop_at):
    chosen = quick(max_steps=6, batch_size=5, drop_rate=0.2, checkpoint_every_steps=2)
    arguments = {"base": str(base_folder), "device": CPU, "resume": True}
    undisturbed = finetune_instructions(SPLIT, chosen, tmp_path / "a", **arguments)
    with pytest.raises(StoppedBySignal):
        finetune_instructions(SPLIT, chosen, tmp_path / "b", callbacks=[stop_at(3)], **arguments)
    assert not (tmp_path / "b" / "answers.jsonl").exists()
    resumed = finetune_instructions(SPLIT, chosen, tmp_path / "b", **arguments)
    assert resumed.resumed_from == 3
    assert resumed.answers == undisturbed.answers
    one, other = (load_model(tmp_path / name).model.state_dict() for name in "ab")
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def test_a_random_base_can_be_tuned_on_instructions(tmp_path):
    result = finetune_instructions(
        SPLIT, quick(max_steps=1, max_new_tokens=1), tmp_path / "run", base="random:tiny", device=CPU
    )
    assert result.scores.n == len(SPLIT.test)
    saved = load_model(tmp_path / "run")
    assert saved.manifest["base"] == "random:tiny"


def test_an_unknown_template_names_the_nearest(base_folder, tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'alpaca'"):
        finetune_instructions(
            SPLIT, quick(template="alpacca"), tmp_path / "r", base=str(base_folder), device=CPU
        )


def test_cut_entries_are_counted(base_folder, tmp_path):
    entries = [*ENTRIES, Instruction(instruction="say", input="", output="word " * 60)]
    split = EntrySplit(train=entries, val=ENTRIES[:2], test=ENTRIES[:2])
    result = finetune_instructions(
        split, quick(max_steps=1), tmp_path / "run", base=str(base_folder), device=CPU
    )
    assert result.n_truncated == 1


# --- packing, conversations and role marks


def test_packed_and_bucketed_training_reach_the_same_answers(base_folder, tmp_path):
    for packing in (True, False):
        out = tmp_path / str(packing)
        chosen = quick(packing=packing, batch_size=6)
        result = finetune_instructions(SPLIT, chosen, out, base=str(base_folder), device=CPU)
        assert result.scores.exact_match == 1.0
        assert 0 <= result.padding_share < 0.2
        assert result.tokens_per_s > 0


def test_a_packed_run_resumes_bit_for_bit(base_folder, tmp_path, stop_at):
    chosen = quick(max_steps=6, batch_size=5, drop_rate=0.2, checkpoint_every_steps=2, packing=True)
    arguments = {"base": str(base_folder), "device": CPU, "resume": True}
    finetune_instructions(SPLIT, chosen, tmp_path / "a", **arguments)
    with pytest.raises(StoppedBySignal):
        finetune_instructions(SPLIT, chosen, tmp_path / "b", callbacks=[stop_at(3)], **arguments)
    finetune_instructions(SPLIT, chosen, tmp_path / "b", **arguments)
    one, other = (load_model(tmp_path / name).model.state_dict() for name in "ab")
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


CHATS = [
    Instruction(instruction="again", input="", output=one, history=(Exchange(f"say {other}", other),))
    for one, other in PAIRS
]


def test_conversations_are_learned_and_the_task_holds_their_system_prompt(tmp_path):
    split = EntrySplit(
        **{
            part: [dataclasses.replace(e, system="be brief") for e in CHATS]
            for part in ("train", "val", "test")
        }
    )
    chosen = quick(template="chatml", system="be brief", max_steps=100, batch_size=6, learning_rate=3e-3)
    result = finetune_instructions(split, chosen, tmp_path / "run", base="random:tiny", device=CPU)
    assert result.scores.exact_match == 1.0  # which word it is, only the first turn tells
    loaded = load_model(tmp_path / "run")
    assert loaded.task == {"kind": "instruction", "template": "chatml", "system": "be brief", "exchanges": 2}
    assert {"<|im_start|>", "<|im_end|>"} <= loaded.tokenizer.special_tokens.keys()


def test_an_entry_that_fills_the_context_with_its_prompt_is_counted(base_folder, tmp_path):
    long = Instruction(instruction="word " * 60, input="", output="up")
    split = EntrySplit(train=[*ENTRIES, long], val=ENTRIES[:2], test=ENTRIES[:2])
    result = finetune_instructions(
        split, quick(max_steps=1), tmp_path / "run", base=str(base_folder), device=CPU
    )
    assert (result.n_left_out, result.n_truncated) == (1, 1)


def test_an_epoch_without_any_answer_is_an_error(base_folder, tmp_path):
    long = [Instruction(instruction="word " * 60, input="", output="up")]
    with pytest.raises(DataError, match="each of the 1 prompts fills 48 tokens"):
        finetune_instructions(
            EntrySplit(train=long, val=long, test=long), quick(), tmp_path / "r",
            base=str(base_folder), device=CPU,
        )  # fmt: skip


def test_role_marks_unknown_to_the_base_are_reported(base_folder, tmp_path):
    notices = []
    finetune_instructions(
        SPLIT, quick(max_steps=1, template="phi3"), tmp_path / "run", base=str(base_folder), device=CPU,
        notify=notices.append,
    )  # fmt: skip
    assert any(
        "has no special tokens <|user|>, <|assistant|>, <|system|>; they become ordinary text" in line
        for line in notices
    )


def test_a_base_with_the_tokenizer_of_another_model_is_an_error(tiny_model, tmp_path):
    larger = train_bpe(
        [" ".join(e.instruction + e.input + e.output for e in ENTRIES) * 3 + "abcdefgh " * 9], 310
    )
    assert larger.vocab_size > tiny_model.config.vocab_size
    with pytest.raises(CheckpointError, match=r"has 3\d\d tokens, but the model has only 300"):
        finetune_instructions(
            SPLIT, quick(max_steps=1), tmp_path / "run", device=CPU,
            base=str(save_model(tmp_path / "base", tiny_model, larger)),
        )  # fmt: skip


def test_a_run_resumed_on_a_base_of_another_tokenizer_is_refused(base_folder, tiny_model, tmp_path):
    arguments = {"device": CPU, "resume": True}
    finetune_instructions(SPLIT, quick(max_steps=1), tmp_path / "run", base=str(base_folder), **arguments)
    other = train_bpe(["say hot cold " * 5], 300)
    base = save_model(tmp_path / "other", tiny_model, other)
    with pytest.raises(CheckpointError, match="another tokenizer"):
        finetune_instructions(SPLIT, quick(max_steps=2), tmp_path / "run", base=str(base), **arguments)


@pytest.mark.parametrize(
    "split",
    [dataclasses.replace(SPLIT, train=ENTRIES[::-1]), dataclasses.replace(SPLIT, val=ENTRIES[:4])],
    ids=["order", "validation"],
)
def test_a_run_resumed_on_other_entries_or_in_another_order_is_refused(base_folder, tmp_path, split):
    arguments = {"device": CPU, "resume": True, "base": str(base_folder)}
    finetune_instructions(SPLIT, quick(max_steps=1), tmp_path / "run", **arguments)
    with pytest.raises(CheckpointError, match="another data_fingerprint"):
        finetune_instructions(split, quick(max_steps=2), tmp_path / "run", **arguments)


@pytest.mark.parametrize("changes", [{"template": "phi3"}, {"label_smoothing": 0.1}, {"drop_rate": 0.3}])
def test_a_run_resumed_with_other_settings_is_refused(base_folder, tmp_path, changes):
    arguments = {"device": CPU, "resume": True, "base": str(base_folder)}
    finetune_instructions(SPLIT, quick(max_steps=1), tmp_path / "run", **arguments)
    with pytest.raises(CheckpointError, match=f"was trained with {next(iter(changes))}="):
        finetune_instructions(SPLIT, quick(max_steps=2, **changes), tmp_path / "run", **arguments)


# --- the task

TASK_ENTRIES = [
    Instruction(instruction="say " + "ba ce " * (i * 5 % 4), input="", output="di " * (i * 3 % 4 + 1))
    for i in range(12)
]
LLAMA = {"norm": "rms", "positions": "rotary", "feed_forward": "swiglu", "linear_bias": False}
KINDS = {
    "gpt2": {},
    "written out": {"attention": "manual", "kernels": "manual"},
    "llama": LLAMA | {"n_kv_heads": 1},
    "all see all": {"is_causal": False},
}


@pytest.fixture(params=KINDS)
def model(request, tiny_model):
    seed_everything(5)
    return GPTModel(dataclasses.replace(tiny_model.config, drop_rate=0.0, **KINDS[request.param]))


@pytest.fixture
def examples(base_tokenizer):
    def make(**settings):
        return InstructionExamples(
            TASK_ENTRIES, base_tokenizer, template=template("plain"), max_length=48, **settings
        )

    return make


def mean_and_gradients(model, task, batches):
    """Of all batches together, as the Trainer accumulates them."""
    model.zero_grad()
    loss_sum = torch.stack([task.loss_sum(model, batch) for batch in batches]).sum()
    mean = loss_sum / sum(batch.n_targets for batch in batches)
    mean.backward()
    return mean.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}


def assert_alike(one, other):
    assert abs(one[0] - other[0]) < 1e-5
    for name, gradient in one[1].items():
        torch.testing.assert_close(gradient, other[1][name], rtol=1e-4, atol=1e-5, msg=name)


def plain_way(model, examples):
    """Every entry alone, scores at every position."""
    return mean_and_gradients(model, PretrainingTask(), [examples().batch([i]) for i in range(12)])


def test_packed_rows_give_loss_and_gradient_of_every_entry_alone(model, examples):
    packed = examples(packing=True).batch(range(12))
    assert len(packed.inputs) < 12
    assert_alike(mean_and_gradients(model, InstructionTask(), [packed]), plain_way(model, examples))


def test_padded_buckets_give_loss_and_gradient_of_every_entry_alone(model, examples):
    loader = BatchLoader(examples(), batch_size=5, bucket_by_length=True)
    batches = list(loader)
    assert any((~batch.attention_mask).any() for batch in batches)
    assert_alike(mean_and_gradients(model, InstructionTask(), batches), plain_way(model, examples))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_scores_at_targets_only_are_enough(model, examples, smoothing):
    batch = examples(mask_instruction=True).batch(range(12))
    tasks = (kind(label_smoothing=smoothing) for kind in (InstructionTask, PretrainingTask))
    assert_alike(*(mean_and_gradients(model, task, [batch]) for task in tasks))


def test_the_head_sees_targets_only(tiny_model, examples):
    seen = []
    tiny_model.out_head.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    batch = examples().batch(range(12))
    InstructionTask().loss_sum(tiny_model, batch)
    assert seen == [(batch.n_targets, tiny_model.config.vocab_size)]


def test_a_batch_without_targets_is_zero_with_a_gradient(tiny_model):
    ids = torch.ones(1, 4, dtype=torch.long)
    loss = InstructionTask().loss_sum(tiny_model, Batch(inputs=ids, targets=torch.full_like(ids, -100)))
    loss.backward()
    assert loss.item() == 0


def test_smoothing_is_for_training_only(tiny_model, examples):
    batch, smoothed, plain = examples().batch([0, 1]), InstructionTask(label_smoothing=0.3), InstructionTask()
    tiny_model.eval()
    assert smoothed.loss_sum(tiny_model, batch) == plain.loss_sum(tiny_model, batch)
    tiny_model.train()
    tiny_model.drop_emb.p = 0.0
    loader = [batch]
    assert smoothed.metrics(tiny_model, loader) == plain.metrics(tiny_model, loader)
