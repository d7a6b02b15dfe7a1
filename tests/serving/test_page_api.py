"""Endpoints that only the page uses."""

from itertools import pairwise

import pytest
import torch

from scratchlm.cli.serve import FolderOfRuns
from scratchlm.core.config import to_dict
from scratchlm.core.seed import seed_everything
from scratchlm.generation.beam import beam_search
from scratchlm.generation.config import GenerationConfig
from scratchlm.model import GPTConfig, GPTModel
from scratchlm.quantization.apply import quantize_model
from scratchlm.quantization.config import QuantizationConfig
from scratchlm.serving.model_views import describe_parts


def test_a_beam_search_gives_its_texts_and_its_tree(server, language_models):
    body = {"model": "base", "prompt": "a cat", "n_beams": 3, "max_tokens": 5}
    found = server.post("/api/beams", body).json()
    lm = language_models["base"]
    own = beam_search(
        lm.model,
        lm.tokenizer.encode("a cat"),
        GenerationConfig(max_new_tokens=5, stop_ids=lm.stop_ids),
        n_beams=3,
        tokenizer=lm.tokenizer,
    )
    assert [beam["ids"] for beam in found["beams"]] == [beam.ids for beam in own]
    assert [beam["score"] for beam in found["beams"]] == pytest.approx([beam.score for beam in own])
    nodes = {node["number"]: node for node in found["nodes"]}
    path, at = [], next(n for n in nodes.values() if n["log_prob"] == pytest.approx(own[0].log_prob))
    while at is not None:
        path.insert(0, at["id"])
        at = nodes.get(at["parent"])
    assert path == own[0].ids


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"model": "base"}, "exactly one of prompt and messages"),
        ({"model": "spam", "prompt": "a"}, "is a classifier"),
        ({"model": "base", "prompt": "a", "n_beams": 99}, "less than or equal to 8"),
        ({"model": "base", "prompt": "a " * 100}, "the context of base holds 64"),
    ],
)
def test_an_impossible_search_is_refused(server, body, message):
    answer = server.post("/api/beams", body)
    assert answer.status_code == 400
    assert message in answer.json()["error"]


def test_the_parts_of_a_model_hold_all_its_parameters(server, language_models):
    found = server.post("/api/parts", {"model": "base"}).json()
    model = language_models["base"].model
    assert (
        sum(part["n_parameters"] for part in found["parts"]) == found["n_parameters"] == model.n_parameters()
    )
    names = ["tok_emb", "pos_emb", "trf_blocks.0", "trf_blocks.1", "final_norm", "out_head"]
    assert [part["name"] for part in found["parts"]] == names
    assert found["config"] == to_dict(model.config)


@pytest.mark.parametrize("is_tied", [False, True])
def test_the_parts_of_a_quantized_model_hold_all_its_parameters(is_tied):
    """The numbers of a quantized matrix exist only while they are counted, so that memory is used again."""
    seed_everything(1)
    model = GPTModel(
        GPTConfig(vocab_size=64, context_length=8, emb_dim=64, n_heads=2, n_layers=8, tie_embeddings=is_tied)
    ).eval()
    quantize_model(model, QuantizationConfig(bits=4))
    found = describe_parts(model)
    assert sum(part["n_parameters"] for part in found["parts"]) == model.n_parameters()
    blocks = [part for part in found["parts"] if part["name"].startswith("trf_blocks")]
    assert len({part["n_parameters"] for part in blocks}) == 1
    assert ("out_head" in [part["name"] for part in found["parts"]]) != is_tied


def test_a_histogram_counts_every_weight_once(server, language_models):
    [part] = server.post("/api/parts", {"model": "base", "part": "trf_blocks.1"}).json()["parts"]
    tensor = part["tensors"][0]
    weight = language_models["base"].model.trf_blocks[1].att.W_query.weight
    assert tensor["name"] == "att.W_query.weight"
    assert sum(tensor["counts"]) == weight.numel()
    assert tensor["mean"] == pytest.approx(weight.mean().item(), abs=1e-7)
    edges = torch.linspace(tensor["low"], tensor["high"], len(tensor["counts"]) + 1)
    inside = [int(((weight >= low) & (weight < high)).sum()) for low, high in pairwise(edges[1:-1])]
    assert (
        sum(abs(a - b) for a, b in zip(inside, tensor["counts"][1:-1])) <= 4
    )  # rounding at the edges of bins
    constant = next(one for one in part["tensors"] if one["name"] == "norm1.scale")  # all ones
    assert max(constant["counts"]) == constant["n_parameters"]
    assert server.post("/api/parts", {"model": "base", "part": "x"}).status_code == 404


def test_a_folders_answers_reports_and_judgements_are_found_by_name(tmp_path):
    folder = tmp_path / "day"
    folder.mkdir()
    (folder / "recipe.toml").write_text('stages = ["instruct"]\n')
    line = '{"instruction": "name a colour", "output": "red", "model_response": "red", "skill": "naming"}\n'
    (folder / "answers.jsonl").write_text(line)
    (folder / "report.html").write_text("<p>report")
    (folder / "answers-by-x-score.jsonl").write_text(
        '{"kind": "header", "judge": "x"}\n' + line
    )  # interrupted
    runs = FolderOfRuns(tmp_path)
    found = runs.answers("day")
    assert found["columns"] == [{"label": "day", "score_name": "token F1", "score_max": 1.0}]
    assert found["items"][0]["answers"][0]["right"]
    assert found["problems"] == ["answers-by-x-score.jsonl is damaged or unfinished, so it is not shown."]
    assert runs.report("day") == "<p>report"
    for name in ("../day", ".", "", "night", str(tmp_path / "day")):
        assert runs.answers(name) is None
        assert runs.report(name) is None
        assert runs.one_run(name) is None


def test_the_page_learns_what_the_server_has(server):
    found = server.get("/api/page").json()
    assert set(found) == {"version", "has_gpt2", "can_control_runs"}
    assert not found["can_control_runs"], "this server was given nothing that starts runs"
