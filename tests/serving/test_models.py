"""The list of models that a server offers."""

import pytest

from scratchlm.core.errors import ConfigError
from scratchlm.serving.models import ModelList, ModelSource, model_sources, served
from scratchlm.serving.request_errors import RequestError


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
