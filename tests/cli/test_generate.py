"""`generate`: every decoder has its flags, impossible combinations are refused, and traces are written."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from scratchlm.checkpoints.store import save_model
from scratchlm.cli.generate import Generate
from scratchlm.generation.config import DecodingSettings, GenerationConfig
from scratchlm.model import GPTConfig, GPTModel

MADE_BY_THE_COMMAND = {"stop_ids", "start_id", "use_cache", "stop_texts"}  # stop_texts is --stop


def test_every_setting_of_generation_is_a_flag():
    flags = {
        field.name: field.default
        for part in (Generate, DecodingSettings)
        for field in dataclasses.fields(part)
    }
    settings = {field.name for field in dataclasses.fields(GenerationConfig)}
    assert settings - flags.keys() == MADE_BY_THE_COMMAND
    for field in dataclasses.fields(GenerationConfig):
        if field.name in flags.keys() - {"max_new_tokens", "early_stopping", "logit_bias"}:
            assert flags[field.name] == field.default, field.name


@pytest.fixture
def model(tmp_path, tiny_tokenizer) -> Path:
    """The folder of a model that has learnt nothing."""
    torch.manual_seed(0)
    config = GPTConfig(
        vocab_size=tiny_tokenizer.vocab_size, context_length=8, emb_dim=16, n_heads=2, n_layers=1,
        positions="rotary",
    )  # fmt: skip
    return save_model(tmp_path / "model", GPTModel(config), tiny_tokenizer)


@pytest.fixture
def generated(model, run_json):
    """The JSON of a command on that model."""
    return lambda flags: run_json(f"generate --model {model} --prompt cat --max-new-tokens 6 {flags}")


DECODERS = """
--temperature 1 --typical-p 0.9 --epsilon-cutoff 0.001 --eta-cutoff 0.001 --top-n-sigma 2 --seed 1
--temperature 1 --mirostat-tau 3 --mirostat-eta 0.2 --seed 1
--repetition-penalty 1.2 --presence-penalty 0.5 --frequency-penalty -0.1 --no-repeat-ngram 2
--dry-multiplier 0.8 --dry-allowed-length 1
--min-new-tokens 6 --banned-ids 5 6 --logit-bias 7=2.5 8=-3
--temperature 1 --best-of 3 --n-best 2 --seed 1
--penalty-alpha 0.6 --top-k 4
--beams 4 --num-beam-groups 2 --diversity-penalty 0.5 --early-stopping yes --n-best 2
--prompt-lookup 2 --draft-tokens 3
--attention-sinks 4
"""


@pytest.mark.parametrize("flags", DECODERS.strip().splitlines())
def test_every_decoder_writes(generated, flags):
    found = generated(flags)
    assert 0 < len(found["ids"]) <= 6
    assert set(found["ids"]).isdisjoint({5, 6}) or "banned" not in flags


def test_forced_tokens_come_first_and_constraints_hold(generated):
    assert generated("--forced-ids 9 8")["ids"][:2] == [9, 8]
    pytest.importorskip("llguidance", reason="llguidance is not installed")
    assert generated("--choices yes no")["text"] in {"yes", "no"}
    assert generated("--regex [ab]{3}")["text"] in {a + b + c for a in "ab" for b in "ab" for c in "ab"}


def test_a_json_schema_is_given_as_text_or_as_a_file(generated, tmp_path):
    pytest.importorskip("llguidance", reason="llguidance is not installed")
    (tmp_path / "schema.json").write_text('{"enum": [true, false]}')
    assert json.loads(generated(f"--json-schema {tmp_path / 'schema.json'}")["text"]) in (True, False)
    assert json.loads(generated('--json-schema {"type":"null"}')["text"]) is None


def test_a_model_may_be_its_own_draft(generated, model):
    assert generated(f"--draft {model}")["ids"] == generated("")["ids"]


IDLE = """
--mirostat-eta 0.5 | --mirostat-eta has no effect: --mirostat-tau is not given
--dry-base 2 --dry-allowed-length 3 | --dry-base, --dry-allowed-length have no effect: --dry-multiplier is not given
--draft-tokens 3 | --draft-tokens has no effect: --prompt-lookup is not given
--draft {model} --draft-tokens 3 --temperature 1 --mirostat-tau 3 | --draft has no effect: tokens are not guessed with
"""


@pytest.mark.parametrize("case", IDLE.strip().splitlines())
def test_settings_without_effect_are_noted(run, model, case):
    flags, note = (part.strip() for part in case.split(" | "))
    flags = flags.format(model=model)
    code, _, err = run(f"generate --model {model} --prompt cat --max-new-tokens 2 {flags}")
    assert code == 0
    assert note in " ".join(err.split())
    assert err.count("no effect") == 1


def test_the_trace_holds_every_step(generated, tmp_path):
    file = tmp_path / "trace.json"
    found = generated(f"--trace {file} --temperature 1 --top-k 3 --seed 2")
    [text] = json.loads(file.read_text())["texts"]
    assert text["prompt"] == "cat"
    assert [step["id"] for step in text["steps"]] == found["ids"]
    assert {"text", "prob", "chosen_with", "id"} == set(text["steps"][0]["candidates"][0])
    assert text["steps"][0]["removed"][0]["step"] == "top_k"


def test_the_trace_of_beams_is_their_tree(generated, tmp_path):
    file = tmp_path / "trace.json"
    found = generated(f"--trace {file} --beams 2")
    [text] = json.loads(file.read_text())["texts"]
    nodes = {node["number"]: node for node in text["tree"]}
    ends = [node for node in nodes.values() if node["fate"] == "ended"]
    best = max(ends, key=lambda node: node["log_prob"])
    path = []
    while best is not None:
        path.append(best["id"])
        best = nodes.get(best["parent"])
    assert path[::-1][: len(found["ids"])] in [beam["ids"] for beam in found["beams"]]


REFUSED = """
--top-k 5 --mirostat-tau 3 --temperature 1 | mirostat_tau and top_k
--mirostat-tau 3 | mirostat_tau needs a temperature
--best-of 3 | best_of needs a temperature
--penalty-alpha 0.6 | penalty_alpha needs top_k
--penalty-alpha 0.6 --top-k 4 --temperature 1 | contrastive search does not sample
--regex a --choices b | regex and choices
--regex a --forced-ids 3 | regex and forced_ids
--beams 2 --best-of 2 --temperature 1 | beam search
--num-beam-groups 2 | num_beam_groups is a setting of beam search
--n-best 2 | n_best=2 needs --beams or --best-of
--length-penalty 2 | length_penalty is a setting of beam search
--beams 2 --length-penalty 2000 | length_penalty must be -50 to 50
--draft x --prompt-lookup 2 | draft and prompt_lookup
--trace . | trace must be a file to write
--best-of 2 --temperature 1 --trace x | trace and best_of
--beams 2 --draft x | draft and beams
--beams 2 --attention-sinks 4 | attention_sinks and beam search
--penalty-alpha 0.6 --top-k 4 --attention-sinks 4 | attention_sinks and penalty_alpha
--min-new-tokens 9 --max-new-tokens 4 | min_new_tokens must be at most max_new_tokens
--banned-ids 4 --forced-ids 4 | banned_ids and forced_ids
--logit-bias 4 | logit_bias must be ID=NUMBER
--logit-bias -4=1 | each id of logit_bias must be a whole number of at least 0, got -4;
--json-schema {] | json_schema must be a JSON object
"""


@pytest.mark.parametrize("case", REFUSED.strip().splitlines())
def test_impossible_combinations_name_both_settings(run, case):
    flags, message = (part.strip() for part in case.split(" | "))
    code, out, err = run(f"generate --model nowhere --prompt cat {flags}")
    assert (code, out) == (2, "")
    assert message in " ".join(err.split())
