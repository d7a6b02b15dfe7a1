"""Recipes: readable files, checked before anything runs."""

import dataclasses

import pytest

from scratchlm.checkpoints.gguf.weights import architecture
from scratchlm.core.config import from_dict
from scratchlm.core.errors import ConfigError
from scratchlm.recipes.recipe import (
    DataSettings,
    Recipe,
    builtin_recipes,
    differing_settings,
    load_recipe,
    recipe_values,
    save_recipe,
)
from scratchlm.training.config import EXTENDABLE


@pytest.mark.parametrize("name", builtin_recipes())
def test_every_builtin_recipe_is_complete_and_says_what_it_does(name):
    short, recipe = load_recipe(name)
    if recipe.needs and not recipe.data.messages:
        recipe = dataclasses.replace(recipe, data=DataSettings(text=("brought.txt",)))
    recipe.check()
    assert short == name
    assert builtin_recipes()[name] == recipe.description != ""


def test_a_recipe_without_a_text_of_its_own_says_what_to_bring():
    recipe = load_recipe("harry-potter")[1]
    assert recipe.data.text == ()
    with pytest.raises(
        ConfigError, match=r"--data.text PATH`\); it needs your own copy of the books: they are under"
    ):
        recipe.check()


def test_the_default_recipe_is_among_them():
    known = {"quickstart", "book", "shakespeare", "harry-potter", "tinystories", "gpt2-124m"}
    assert known <= builtin_recipes().keys()


def test_the_books_recipe_has_the_books_settings():
    recipe = load_recipe("book")[1]
    assert recipe.base == "gpt2-small"
    for stage in (recipe.classify, recipe.instruct):
        assert (stage.batch_size, stage.learning_rate, stage.weight_decay) == (8, 5e-5, 0.1)
    assert (recipe.classify.epochs, recipe.instruct.epochs) == (5, 2)
    assert not recipe.instruct.mask_instruction


def test_the_large_recipe_is_gpt2_of_124_million():
    recipe = load_recipe("gpt2-124m")[1]
    config = recipe.model.resolve(vocab_size=50257)
    assert (config.n_layers, config.emb_dim, config.context_length) == (12, 768, 1024)
    tokens = recipe.pretrain.batch_size * recipe.pretrain.accumulate * config.context_length
    assert tokens == 2**19  # half a million a step


@pytest.mark.parametrize("name", builtin_recipes())
def test_other_programs_know_the_model_of_every_recipe(name):
    recipe = load_recipe(name)[1]
    assert architecture(recipe.model.resolve(vocab_size=1000)) in ("gpt2", "llama", "qwen3")


@pytest.mark.parametrize("name", builtin_recipes())
def test_a_recipe_saved_and_loaded_back_is_the_same(name, tmp_path):
    _, recipe = load_recipe(name)
    (tmp_path / "run").mkdir()
    save_recipe(recipe, tmp_path / "run" / "recipe.toml")
    for path in (tmp_path / "run", tmp_path / "run" / "recipe.toml"):
        assert load_recipe(str(path)) == ("run", recipe)


def test_a_file_of_ones_own_is_a_recipe_by_its_name(tmp_path):
    (tmp_path / "mine.toml").write_text('[pretrain]\nmax_steps = 3\n[data]\ntext = ["a.txt"]\n')
    short, recipe = load_recipe(str(tmp_path / "mine.toml"))
    assert short == "mine"
    assert recipe.pretrain.max_steps == 3
    assert recipe.data.text == ("a.txt",)
    assert recipe_values(str(tmp_path / "mine.toml"))[1]["pretrain"] == {"max_steps": 3}


def test_a_recipe_mixes_texts_by_weight(tmp_path):
    path = tmp_path / "mine.toml"
    start = 'stages = ["pretrain"]\n[pretrain]\nmax_steps = 3\n[data]\ntext = ["a.txt", "b.txt"]\n'
    path.write_text(f"{start}text_weights = [0.7, 0.3]\n")
    recipe = load_recipe(str(path))[1]
    recipe.check()
    assert recipe.data.text_weights == (0.7, 0.3)
    path.write_text(f"{start}text_weights = [1.0]\n")
    with pytest.raises(ConfigError, match="one number each, got 1 for 2"):
        load_recipe(str(path))[1].check()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[modell]\n", r"mine has no setting 'modell'; did you mean 'model'\?"),
        ("[model]\nn_layer = 2\n", r"mine.model has no setting 'n_layer'; did you mean 'n_layers'\?"),
        (
            "[pretrain]\nmax_step = 2\n",
            r"mine.pretrain has no setting 'max_step'; did you mean 'max_steps'\?",
        ),
        ('stages = ["pretrian"]\n', r"mine.stages\[0\] must be one of 'pretrain'"),
        ('[model]\nsize = "huge"\n', "mine.model.size must be"),
        ('[pretrain]\nbatch_size = "8"\n', "mine.pretrain.batch_size must be int, got '8'"),
        ("[pretrain]\nmax_steps = 3.0\n", r"mine.pretrain.max_steps must be int, got 3\.0"),
        ('[data]\ntext = "a.txt"\n', "mine.data.text must be a list, got 'a.txt'"),
        ("[pretrain]\nmax_steps = 0\n", "max_steps must be above zero"),
        ("model = 3\n", "mine.model must be a table"),
        ("[model\n", "is not valid TOML"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_the_nearest(tmp_path, text, message):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_recipe(str(path))


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'quickstart'"):
        load_recipe("quikstart")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.toml cannot be read"):
        load_recipe(str(tmp_path / "gone.toml"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": []}, "stages must name at least one stage, and each once"),
        ({"stages": ["pretrain", "pretrain"]}, "stages must name at least one stage, and each once"),
        ({"stages": ["classify"]}, "needs a base"),
        ({"data": {"text": []}}, r"the stage pretrain has no data.*data\.text"),
        ({"data": {"messages": []}}, r"the stage classify has no data.*--data\.messages"),
        ({"stages": ["prefer"], "base": "x", "data": {"preferences": []}}, r"has no data.*data\.preferences"),
        ({"stages": ["pretrain", "prefer", "instruct"]}, "prefer must come after instruct"),
        ({"data": {"instructions": []}}, r"the stage instruct has no data.*data\.instructions"),
    ],
)
def test_a_recipe_that_cannot_run_is_refused(recipe_of, changes, message):
    with pytest.raises(ConfigError, match=message):
        recipe_of(**changes).check()


@pytest.mark.parametrize("stage", ["pretrain", "classify", "instruct"])
def test_every_stage_needs_an_end(recipe_of, stage):
    recipe = recipe_of()
    endless = dataclasses.replace(getattr(recipe, stage), max_steps=None)
    with pytest.raises(ConfigError, match=rf"the stage {stage} has no end.*\[{stage}\]"):
        dataclasses.replace(recipe, **{stage: endless}).check()


def test_what_no_stage_uses_may_be_missing(recipe_of):
    recipe_of(stages=["pretrain"], data={"messages": [], "instructions": []}).check()
    recipe_of(stages=["classify"], base="random:tiny", data={"text": []}).check()


def test_differences_are_named_with_dots(recipe_of):
    one = recipe_of()
    assert differing_settings(one, recipe_of()) == []
    other = recipe_of(model={"n_layers": 2}, pretrain={"max_steps": 9}, sample_prompt="x")
    assert sorted(differing_settings(one, other)) == ["model.n_layers", "pretrain.max_steps", "sample_prompt"]


def test_what_may_be_extended_are_settings_of_every_stage(recipe_of):
    for stage in ("pretrain", "classify", "instruct", "prefer"):
        assert {field.name for field in dataclasses.fields(getattr(recipe_of(), stage))} >= EXTENDABLE


def test_an_empty_table_is_the_defaults():
    assert from_dict(Recipe, {}, where="empty") == Recipe()
