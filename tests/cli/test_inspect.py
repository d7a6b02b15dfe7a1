"""`scratchlm inspect`: what it prints, writes and returns."""

from pathlib import Path


def test_a_language_models_prediction_is_explained(run, life):
    code, out, err = run(
        f"inspect --model {life['base']} --prompt", "the cat and the cat", "--html", "a.html"
    )
    assert code == 0, err
    for words in (
        "next token:",
        "gradient times input",
        "logit lens",
        "block 0",
        "induction",
        "contributions",
    ):
        assert words in out, words
    assert "page: a.html" in err
    assert "Logit lens" in Path("a.html").read_text(encoding="utf-8")


def test_json_holds_the_inspection_and_the_files(run_json, life):
    found = run_json(f"inspect --model {life['base']} --png a.png --choices 2 --top 4 --prompt", "the cat")
    assert found["kind"] == "language model"
    assert len(found["choices"]) == 2
    assert len(found["lens"][0][0]["top"]) == 4
    assert found["png"] == "a.png"
    assert "html" not in found
    assert Path("a.png").is_file()


def test_a_classifiers_classes_are_explained(run_json, run, life):
    found = run_json(f"inspect --model {life['classifier']} --target spam --prompt", "win a prize now")
    assert {choice["text"] for choice in found["choices"]} == {"ham", "spam"}
    code, out, _ = run(f"inspect --model {life['classifier']} --prompt -", stdin="win a prize now")
    assert code == 0
    assert "class:" in out


def test_what_is_missing_or_wrong_is_said_before_the_model_is_read(run, life, tmp_path):
    assert "add --model" in run("inspect --prompt x")[2]
    assert "add --prompt" in run(f"inspect --model {life['base']}")[2]
    code, _, err = run(f"inspect --model nowhere --prompt x --html {tmp_path}")
    assert (code, "--html must name a file" in err) == (2, True)
    code, _, err = run(f"inspect --model {life['base']} --target", "win a prize", "--prompt", "x")
    assert (code, "must be one token" in err) == (2, True)
