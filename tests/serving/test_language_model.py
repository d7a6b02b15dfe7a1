"""The Python door: load, generate, classify, ask."""

import pytest
import torch

import scratchlm
from scratchlm.checkpoints.store import checkpoint_folder, save_model
from scratchlm.core.errors import CheckpointError, ConfigError, DataError
from scratchlm.core.seed import seed_everything
from scratchlm.finetuning.heads import replace_head
from scratchlm.generation.beam import beam_search
from scratchlm.generation.generate import generate_ids
from scratchlm.serving.language_model import LanguageModel, load
from scratchlm.tokenizers.bpe_trainer import train_bpe
from tests.tiny import tiny_gpt
from tests.tolerances import n_roundings, rounding

CORPUS = "once upon a time a cat sat on a mat and a dog saw the cat and the mat " * 3


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe([CORPUS], 290)


@pytest.fixture
def saved(tokenizer, tmp_path):
    """A function that saves a tiny model of a kind and returns its folder."""

    def save(kind=None, *, folder=tmp_path / "model", **task):
        seed_everything(3)
        model = tiny_gpt(tokenizer.vocab_size, context_length=64, init="gpt2")
        if kind == "classification":
            replace_head(model, len(task["classes"]))
        return save_model(folder, model, tokenizer, task={"kind": kind, **task} if kind else None)

    return save


@pytest.fixture
def classifier(saved):
    return load(saved("classification", classes=["ham", "spam"], max_length=12))


def test_load_brings_model_tokenizer_config_and_task_together(saved, tokenizer):
    lm = load(saved(), device="cpu")
    assert isinstance(lm, LanguageModel)
    assert lm.kind == "language model"
    assert lm.task == {}
    assert lm.class_names == []
    assert lm.config.vocab_size == tokenizer.vocab_size
    ids = torch.tensor([lm.tokenizer.encode("a cat")])
    assert lm.model(ids).shape == (*ids.shape, tokenizer.vocab_size)
    assert not lm.model.training


def test_the_package_offers_load_itself(saved):
    assert scratchlm.load(saved()).generate("a cat", max_new_tokens=2)


def test_a_run_folder_means_its_newest_checkpoint(saved, tmp_path):
    run = tmp_path / "run"
    for step in (2, 10):
        saved(folder=checkpoint_folder(run, step))
    assert load(run).folder == checkpoint_folder(run, 10)


def test_a_folder_without_a_model_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="got a folder without one"):
        load(tmp_path)


@pytest.mark.parametrize(
    "settings", [{}, {"temperature": 0.9, "seed": 4}, {"temperature": 1.5, "top_k": 20, "seed": 1}]
)
def test_streamed_pieces_add_up_to_the_whole_text(saved, settings):
    lm = load(saved())
    whole = lm.generate("once upon", max_new_tokens=20, **settings)
    pieces = list(lm.generate("once upon", max_new_tokens=20, stream=True, **settings))
    assert "".join(pieces) == whole
    assert len(pieces) > 1


def test_the_seed_decides_and_nothing_else_does(saved):
    lm = load(saved())
    settings = {"max_new_tokens": 30, "temperature": 1.0}
    first = lm.generate("a dog", seed=1, **settings)
    torch.rand(5)
    assert lm.generate("a dog", seed=1, **settings) == first
    assert lm.generate("a dog", seed=2, **settings) != first


def test_an_empty_prompt_begins_a_text(saved):
    assert load(saved()).generate("", max_new_tokens=5)


def test_end_of_text_ends_an_answer_unless_stop_ids_say_otherwise(saved):
    lm = load(saved())
    with torch.no_grad():  # end-of-text becomes the most likely token everywhere
        lm.model.final_norm.scale.zero_()
        lm.model.final_norm.shift.copy_(lm.model.out_head.weight[lm.tokenizer.end_of_text_id] * 100)
    assert lm.generate("a cat", max_new_tokens=5) == ""
    assert "<|endoftext|>" in lm.generate("a cat", max_new_tokens=5, stop_ids=())


def test_one_beam_is_the_greedy_text_and_more_are_at_least_as_likely(saved):
    lm = load(saved())
    assert lm.generate("once", beams=1, max_new_tokens=8) == lm.generate("once", max_new_tokens=8)
    ids = lm.encode_prompt("once")
    config = lm.generation_config(max_new_tokens=8)
    best = beam_search(lm.model, ids, config, n_beams=4, tokenizer=lm.tokenizer)[0]
    assert lm.generate("once", beams=4, max_new_tokens=8) == best.text


def test_beams_cannot_be_streamed(saved):
    with pytest.raises(ConfigError, match="beam search cannot be streamed, got beams and stream=True"):
        load(saved()).generate("once", beams=2, stream=True)


def test_an_unknown_setting_names_the_nearest_and_does_so_at_once(saved):
    lm = load(saved())
    with pytest.raises(ConfigError, match="did you mean 'temperature'"):
        lm.generate("a cat", temprature=0.5, stream=True)  # although the iterator is not used


def test_an_impossible_setting_is_named(saved):
    with pytest.raises(ConfigError, match="max_new_tokens"):
        load(saved()).generate("a cat", max_new_tokens=-1)


def test_a_classifier_labels_texts_in_their_order(classifier):
    texts = ["the mat", "a cat sat on a mat and a dog saw the cat and the mat", "dog"]
    found = classifier.classify(texts)
    assert [p.text for p in found] == texts
    assert {p.label for p in found} <= {"ham", "spam"}
    assert [p.is_truncated for p in found] == [False, True, False]
    allowed = rounding(1.0, n=n_roundings(classifier.config))
    assert classifier.classify([texts[2]])[0].probability == pytest.approx(found[2].probability, abs=allowed)
    assert classifier.classify([]) == []


def test_an_empty_text_cannot_be_classified(classifier):
    with pytest.raises(DataError, match="text 1 is empty"):
        classifier.classify(["fine", ""])


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("WIN", r"needs a list of texts, got one text; write classify\(\['WIN'\]\)"),
        (["a", 1], r"got 1 \(int\) as number 1"),
        ([None], r"got None \(NoneType\) as number 0"),
    ],
)
def test_what_is_no_list_of_texts_is_refused(classifier, texts, message):
    with pytest.raises(DataError, match=message):
        classifier.classify(texts)


def test_a_classifier_does_not_write(classifier):
    with pytest.raises(
        ConfigError, match=r"generate needs a language model, but .* is a classifier; use classify"
    ):
        classifier.generate("a cat")


def test_a_language_model_neither_classifies_nor_answers(saved):
    lm = load(saved())
    with pytest.raises(ConfigError, match="classify needs a classifier, but this model is a language model"):
        lm.classify(["a cat"])
    with pytest.raises(ConfigError, match="ask needs an assistant, but this model is a language model"):
        lm.ask("say hello")


def test_an_assistant_is_asked_in_its_own_template(saved):
    lm = load(saved("instruction", template="plain"))
    answer = lm.ask("say", input="cat", max_new_tokens=6)
    continued = lm.generate("Q: say\ncat\nA:", max_new_tokens=6)
    assert answer == continued.removeprefix(" ")
    with pytest.raises(ConfigError, match="classify needs a classifier"):
        lm.classify(["a cat"])


def test_an_assistant_is_reminded_of_the_conversation_in_its_template(saved):
    lm = load(saved("instruction", template="plain", system="be a cat", exchanges=2))
    assert lm.supports_conversations
    answer = lm.ask("say mat", history=[("say cat", "cat")], max_new_tokens=6)
    end = lm.tokenizer.end_of_text_id
    ids = [
        *lm.tokenizer.encode("be a cat\nQ: say cat\nA:"), *lm.tokenizer.encode(" cat"), end,
        *lm.tokenizer.encode("\nQ: say mat\nA:"),
    ]  # fmt: skip
    config = lm.generation_config(max_new_tokens=6)
    assert answer == generate_ids(lm.model, [ids], config, tokenizer=lm.tokenizer)[0].text.removeprefix(" ")
    without = lm.ask("say mat", system="", max_new_tokens=6)
    assert without == lm.generate("Q: say mat\nA:", max_new_tokens=6).removeprefix(" ")


def test_a_conversation_too_long_for_the_context_loses_its_beginning(saved, caplog):
    lm = load(saved("instruction", template="plain"))
    assert not lm.supports_conversations
    long = [(f"say cat {i}", "a cat and the mat") for i in range(20)]
    answer = lm.ask("say", history=long, max_new_tokens=8)
    assert answer in [lm.ask("say", history=long[-n:], max_new_tokens=8) for n in (1, 2, 3)]
    assert "are ignored" not in caplog.text  # whole exchanges went, not the beginning of one


def test_stop_is_not_taken_for_stop_ids(saved):
    with pytest.raises(ConfigError, match=r"no setting 'stop', got stop='x'; use stop_texts"):
        load(saved(), device="cpu").generate("a cat", stop="x")


def test_a_prompt_begins_as_the_model_learnt_it(saved, monkeypatch):
    lm = load(saved(), device="cpu")
    plain = lm.encode_prompt("a cat")
    assert plain == lm.tokenizer.encode("a cat")
    monkeypatch.setattr(type(lm.tokenizer), "begin_of_text_id", 7)
    assert lm.encode_prompt("a cat") == [7, *plain]
