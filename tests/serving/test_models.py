"""The list of models that a server offers."""

import time
from dataclasses import replace

import pytest

from scratchlm.checkpoints.store import save_model
from scratchlm.cli.serve import ModelsOfRuns
from scratchlm.core.errors import ConfigError
from scratchlm.core.run_lock import run_lock
from scratchlm.serving.models import ModelList, ModelSource, model_sources, open_served, served
from scratchlm.serving.request_errors import RequestError
from tests.serving.conftest import running


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        (["runs/quickstart/instruct", "runs/quickstart"], ["quickstart/instruct", "runs/quickstart"]),
        (["/somewhere/models/a.gguf"], ["models/a.gguf"]),
        (["gpt2-small"], ["gpt2-small"]),
        (["my=runs/quickstart", "org/their:latest=b"], ["my", "org/their:latest"]),
        (["../../a"], ["a"]),
    ],
)
def test_an_id_is_the_last_two_parts_of_the_path_or_the_name(words, ids):
    assert [source.id for source in model_sources(words)] == ids


def test_a_path_that_holds_an_equals_sign_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=3").mkdir()
    assert model_sources(["lr=3", "best=lr=3"]) == [ModelSource("lr=3", "lr=3"), ModelSource("best", "lr=3")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a=", "b"], "must be MODEL or NAME=MODEL"),
        (["<script>=b"], "must be MODEL or NAME=MODEL"),
        (["x/a", "y/x/a"], "two models have the id 'x/a': x/a and y/x/a"),
    ],
)
def test_a_wrong_list_is_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        model_sources(words)


def test_only_ids_of_the_list_are_found(language_models):
    models = ModelList([served(ModelSource("a/b", "runs/a/b"), language_models["base"])])
    assert models.find("a/b").id == models.find("a/b:latest").id == "a/b"
    for name in ("b", "runs/a/b", "A/B", "a/b:other", ""):
        with pytest.raises(RequestError) as caught:
            models.find(name)
        assert caught.value.status_code == 404


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ({}, False),
        ({"kind": "classification"}, False),
        ({"kind": "instruction", "template": "plain"}, False),
        ({"kind": "instruction", "template": "plain", "exchanges": 3}, True),
    ],
)
def test_earlier_turns_belong_in_the_prompts_of_assistants_of_conversations(language_models, task, expected):
    model = served(ModelSource("a", "a"), language_models["chat"])
    assert (
        replace(model, task=task, kind=task.get("kind", "language model")).supports_conversations is expected
    )


def test_a_served_model_is_described(language_models):
    model = served(ModelSource("spam", "runs/spam"), language_models["spam"])
    assert (model.kind, model.class_names, model.template, model.n_bits) == (
        "classification",
        ["ham", "spam"],
        None,
        32,
    )
    assert model.n_parameters == language_models["spam"].model.n_parameters()
    assert model.size_bytes >= 4 * model.n_parameters
    with pytest.raises(RequestError, match="is a classifier"):
        model.check_generates()


def write_checkpoint(run, lm, step: int) -> None:
    """A run's model as training leaves it."""
    run.mkdir(exist_ok=True)
    (run / "recipe.toml").write_text('stages = ["pretrain"]\n')
    save_model(run / "checkpoints" / f"step-{step:08d}", lm.model, lm.tokenizer)


@pytest.fixture
def models_of_runs(tmp_path) -> ModelsOfRuns:
    """The models of an empty runs folder."""
    (tmp_path / "runs").mkdir()

    def open_one(folder):
        return open_served(*model_sources([str(folder)]), device="cpu")

    reports: list[str] = []
    found = ModelsOfRuns(tmp_path / "runs", open_one, report=reports.append)
    found.reports = reports
    return found


def test_models_of_the_runs_folder_are_opened_when_they_are_new_or_changed(models_of_runs, language_models):
    runs, lm = models_of_runs.folder, language_models["base"]
    assert models_of_runs() == []
    write_checkpoint(runs / "a", lm, 1)
    (runs / "b").mkdir()  # not a run
    assert [model.id for model in models_of_runs()] == ["runs/a"]
    assert models_of_runs() == []
    with run_lock(runs / "c"):
        write_checkpoint(runs / "c", lm, 1)
        assert models_of_runs() == [], "it is being trained"
    assert [model.id for model in models_of_runs()] == ["runs/c"]
    write_checkpoint(runs / "a", lm, 2)
    write_checkpoint(runs / "d", lm, 1)
    (runs / "d" / "checkpoints" / "step-00000001" / "model.safetensors").write_bytes(b"")
    assert [model.id for model in models_of_runs()] == ["runs/a"]
    [left_out] = models_of_runs.reports
    assert "d is left out" in left_out
    assert models_of_runs() == []
    assert len(models_of_runs.reports) == 1, "it is not tried again"


def test_a_server_lists_models_that_appear_while_it_runs(models_of_runs, language_models, monkeypatch):
    monkeypatch.setattr("scratchlm.serving.service.LOOK_EVERY_S", 0)
    runs, body = models_of_runs.folder, {"prompt": "a cat", "max_tokens": 5, "temperature": 0}
    write_checkpoint(runs / "a", language_models["base"], 1)
    with running(models_of_runs(), new_models=models_of_runs) as server:

        def ids() -> list[str]:
            return [model["id"] for model in server.get("/v1/models").json()["data"]]

        def text(model: str):
            answer = server.post("/v1/completions", body | {"model": model})
            return answer.json()["choices"][0]["text"] if answer.status_code == 200 else answer.status_code

        assert ids() == ["runs/a"]
        first = text("runs/a")
        write_checkpoint(runs / "b", language_models["chat"], 1)
        assert text("runs/b") == 404, "only a list of models looks for new ones"
        assert [model["name"] for model in server.get("/api/tags").json()["models"]] == ["runs/a", "runs/b"]
        assert text("runs/b") != first
        for name in ("../runs/b", str(runs / "b"), "b", "runs/b/checkpoints/step-00000001"):
            assert text(name) == 404
        write_checkpoint(runs / "a", language_models["chat"], 2)
        assert ids() == ["runs/a", "runs/b"]
        assert text("runs/a") == text("runs/b")
        until = time.monotonic() + 10
        while len(server.service.worker._running) > 2 and time.monotonic() < until:
            time.sleep(0.05)
        assert len(server.service.worker._running) == 2, "the replaced model was unloaded"


def test_a_look_that_fails_leaves_the_known_models(language_models, monkeypatch, caplog):
    monkeypatch.setattr("scratchlm.serving.service.LOOK_EVERY_S", 0)

    def broken():
        raise PermissionError("runs")

    models = [served(ModelSource("a", "runs/a"), language_models["base"])]
    with running(models, new_models=broken) as server:
        for _ in range(2):
            assert [model["id"] for model in server.get("/v1/models").json()["data"]] == ["a"]
    assert "looking for new models failed" in caplog.text
