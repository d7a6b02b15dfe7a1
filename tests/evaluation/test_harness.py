"""The harness asks our model and the Hugging Face export of the same weights; both must score the same."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from scratchlm.checkpoints.huggingface import export_huggingface
from scratchlm.checkpoints.store import save_model
from scratchlm.core.errors import ConfigError, DataError, MissingDependencyError
from scratchlm.evaluation.harness import HarnessAnswers, _known, harness_model, run_harness
from scratchlm.evaluation.task_items import read_task_items
from scratchlm.evaluation.tasks import score_choices, score_cloze
from scratchlm.model import GPTConfig, GPTModel

HAS_HARNESS = importlib.util.find_spec("lm_eval") is not None
needs_harness = pytest.mark.skipif(
    not HAS_HARNESS, reason="lm-eval is not installed: pip install 'scratchlm[harness]'"
)
TASKS = {  # each of the three questions that the harness asks, and the choice between several
    "own_choice": """
output_type: multiple_choice
doc_to_text: "{{prompt}}"
doc_to_target: "{{answer}}"
doc_to_choice: "{{choices}}"
metric_list:
  - metric: acc
  - metric: acc_norm
  - metric: acc_bytes
""",
    "own_cloze": """
output_type: loglikelihood
doc_to_text: "{{prompt}}"
doc_to_target: " {{choices[0]}}"
metric_list:
  - metric: perplexity
    aggregation: perplexity
    higher_is_better: false
  - metric: acc
""",
    "own_rolling": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{long}}"
metric_list:
  - metric: bits_per_byte
    aggregation: bits_per_byte
    higher_is_better: false
""",
    "own_generation": """
output_type: generate_until
doc_to_text: "{{prompt}}"
doc_to_target: "{{written}}"
generation_kwargs:
  until: ["."]
  max_gen_toks: 8
  do_sample: false
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
""",
}
BOTH = """
import json, sys
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from scratchlm.checkpoints.store import load_model
from scratchlm.evaluation.harness import harness_model

native, exported, folder, out, *names = sys.argv[1:]
loaded = load_model(native)
models = {
    "ours": harness_model(loaded.model, loaded.tokenizer, batch_size=3),
    "theirs": HFLM(pretrained=exported, device="cpu", dtype="float32", batch_size=4),
}
manager = TaskManager(include_path=folder, include_defaults=False)
found = {}
for name, model in models.items():
    result = simple_evaluate(model=model, tasks=names, task_manager=manager, log_samples=True, bootstrap_iters=0)
    answers = {task: [row["resps"] for row in rows] for task, rows in result["samples"].items()}
    found[name] = {"results": result["results"], "answers": answers}
json.dump(found, open(out, "w"), default=str)
"""
PROMPTS = [
    "The cat sat",
    "the dog and the",
    "on the log.",
    "The mat and",
    "the cat on the mat and the dog on",
]


@pytest.fixture(scope="module")
def model(tiny_tokenizer):
    torch.manual_seed(5)
    size = {"context_length": 40, "emb_dim": 32, "n_heads": 2, "n_layers": 2}
    return GPTModel(GPTConfig(vocab_size=tiny_tokenizer.vocab_size, **size)).eval()


@pytest.fixture
def tasks(tmp_path, model, tiny_tokenizer):
    """A folder with four tasks and their data, some answers right and most of them wrong."""
    requests = [SimpleNamespace(args=(prompt, {"until": ["."], "max_gen_toks": 8})) for prompt in PROMPTS]
    written = HarnessAnswers(model, tiny_tokenizer).generate_until(requests)
    folder = tmp_path / "tasks"
    folder.mkdir()
    rows = [
        {
            "prompt": prompt,
            "choices": ["on the mat", "été", "dog and the cat and the mat"],
            "answer": i % 3,
            "long": f"{prompt} " * (5 * i + 1),
            "written": answer if i % 2 else "no",
        }
        for i, (prompt, answer) in enumerate(zip(PROMPTS, written))
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    data = f"dataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {folder / 'rows.jsonl'}\n"
    for name, body in TASKS.items():
        (folder / f"{name}.yaml").write_text(f"task: {name}\n{data}test_split: test\n{body.strip()}\n")
    return folder


def offline(tmp_path):
    """Variables under which a process uses no network and no cache but its own."""
    alone = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    return os.environ | alone | {"HF_HOME": str(tmp_path / "hf"), "TQDM_DISABLE": "1"}


@needs_harness
@pytest.mark.slow
def test_scores_equal_those_of_the_hugging_face_export(model, tasks, tiny_tokenizer, tmp_path):
    pytest.importorskip("transformers")
    native = save_model(tmp_path / "native", model, tiny_tokenizer)
    exported = export_huggingface(tmp_path / "exported", model, tiny_tokenizer)
    out = tmp_path / "found.json"
    command = [sys.executable, "-c", BOTH, *map(str, (native, exported, tasks, out)), *TASKS]
    done = subprocess.run(
        command, env=offline(tmp_path), capture_output=True, text=True, check=False, timeout=250
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(out.read_text())
    for task in TASKS:
        ours, theirs = (found[name]["results"][task] for name in ("ours", "theirs"))
        figures = {key for key, value in theirs.items() if "," in key and isinstance(value, (int, float))}
        assert figures
        assert {key: ours[key] for key in figures} == pytest.approx(
            {key: theirs[key] for key in figures}, rel=1e-5, abs=1e-4
        )
    assert found["ours"]["answers"]["own_generation"] == found["theirs"]["answers"]["own_generation"]
    assert 0 < found["ours"]["results"]["own_generation"]["exact_match,none"] < 1
    for task in ("own_choice", "own_cloze", "own_rolling"):
        ours, theirs = (numbers(found[name]["answers"][task]) for name in ("ours", "theirs"))
        assert ours == pytest.approx(theirs, abs=1e-3)


def numbers(value):
    """All log probabilities in nested lists of texts such as "-12.5"."""
    if isinstance(value, list):
        return [number for one in value for number in numbers(one)]
    return [] if str(value) in ("True", "False") else [float(value)]


@needs_harness
@pytest.mark.slow
def test_the_command_asks_own_tasks_and_prints_one_object(model, tasks, tiny_tokenizer, tmp_path):
    native = save_model(tmp_path / "native", model, tiny_tokenizer)
    flags = f"--model {native} --tasks own_choice own_generation --include-path {tasks} --limit 4 --json"
    command = [sys.executable, "-m", "scratchlm", "evaluate", "harness", *flags.split()]
    done = subprocess.run(
        command, env=offline(tmp_path), capture_output=True, text=True, check=False, timeout=250
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    metrics = {(row["task"], row["metric"]) for row in found["scores"]}
    assert {("own_choice", "acc"), ("own_choice", "acc_norm"), ("own_generation", "exact_match")} <= metrics
    assert all(row["n"] == 4 for row in found["scores"])


@needs_harness
@pytest.mark.slow
def test_an_unknown_task_is_told_with_the_nearest_name(tasks):
    manager = importlib.import_module("lm_eval.tasks").TaskManager(
        include_path=str(tasks), include_defaults=False
    )
    assert _known("own_c*", manager) == ["own_choice", "own_cloze"]
    assert _known(str(tasks / "own_choice.yaml"), manager) == [str(tasks / "own_choice.yaml")]
    with pytest.raises(ConfigError, match="did you mean own_choice"):
        _known("own_choise", manager)


PAIRS = [f"{one} {other}" for one in PROMPTS for other in PROMPTS]
PUBLISHED = {  # the harness's own tasks, on a file of the published form
    "lambada/lambada_openai.yaml": ("test", [{"text": f"{prompt} mat"} for prompt in PAIRS]),
    "hellaswag/hellaswag.yaml": (
        "validation",
        [
            {
                "activity_label": "Sleeping",
                "ctx_a": prompt,
                "ctx_b": "the dog",
                "ctx": f"{prompt} the dog",
                "endings": ["on the [step] mat", "on the log", "and the cat", "the dog"],
                "label": f"{i % 4}",
            }
            for i, prompt in enumerate(PAIRS)
        ],
    ),
    "arc/arc_easy.yaml": (
        "test",
        [
            {
                "question": f"{prompt}?",
                "choices": {"text": ["the mat", "été", "dog and cat"], "label": ["A", "B", "C"]},
                "answerKey": "ABC"[i % 3],
            }
            for i, prompt in enumerate(PAIRS)
        ],
    ),
}


@needs_harness
@pytest.mark.slow
def test_files_in_published_forms_score_as_the_harnesss_own_tasks_do(model, tiny_tokenizer, tmp_path):
    native, folder = save_model(tmp_path / "native", model, tiny_tokenizer), tmp_path / "tasks"
    folder.mkdir()
    theirs = Path(importlib.util.find_spec("lm_eval").origin).parent / "tasks"
    expected = {}
    for path, (split, rows) in PUBLISHED.items():
        name = f"own_{Path(path).stem}"
        data = folder / f"{name}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        splits = dict.fromkeys(("training_split", "validation_split", "test_split"), "null") | {
            f"{split}_split": split
        }
        lines = [f"include: {theirs / path}", f"task: {name}", "dataset_path: json", "dataset_name: null"]
        lines += [f"dataset_kwargs:\n  data_files:\n    {split}: {data}"]
        lines += [f"{key}: {value}" for key, value in splits.items()]
        kind, items = read_task_items(data)
        score = score_cloze if kind == "cloze" else score_choices
        result = score(model, tiny_tokenizer, items)
        expected[name, "acc"] = result.share()
        if kind == "choice":
            expected[name, "acc_norm"] = result.share("accuracy_characters")
            expected[name, "brier_score"] = pytest.approx(brier_score(result.items), rel=1e-5)
            metrics = [
                "acc",
                "acc_norm",
                "brier_score\n    aggregation: brier_score\n    higher_is_better: false",
            ]
            lines += ["metric_list:", *(f"  - metric: {metric}" for metric in metrics)]
        else:
            expected[name, "perplexity"] = pytest.approx(result.perplexity, rel=1e-5)
        (folder / f"{name}.yaml").write_text("\n".join(lines) + "\n")
    names = [f"own_{Path(path).stem}" for path in PUBLISHED]
    flags = ["--tasks", *names, "--include-path", str(folder), "--json"]
    command = [sys.executable, "-m", "scratchlm", "evaluate", "harness", "--model", str(native), *flags]
    done = subprocess.run(
        command, env=offline(tmp_path), capture_output=True, text=True, check=False, timeout=250
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = {(row["task"], row["metric"]): row["value"] for row in json.loads(done.stdout)["scores"]}
    assert found == expected


def brier_score(rows):
    """How far the choices' probabilities are from the answer: unlike accuracy it moves with every log probability."""
    scores = []
    for row in rows:
        probs = torch.tensor(row["log_probs"]).softmax(dim=0)
        probs[row["answer"]] -= 1
        scores.append((probs**2).sum().item())
    return sum(scores) / len(scores)


def test_without_the_harness_the_command_that_installs_it_is_told(model, tiny_tokenizer, monkeypatch):
    for name in ("lm_eval", "lm_eval.api", "lm_eval.api.model", "lm_eval.tasks"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=r"scratchlm\[harness\]"):
        harness_model(model, tiny_tokenizer)
    with pytest.raises(MissingDependencyError, match=r"scratchlm\[harness\]"):
        run_harness(model, tiny_tokenizer, ["arc_easy"])


def asked(*args):
    return [SimpleNamespace(args=args)]


@pytest.mark.parametrize("n_words", [1, 12, 13, 40, 100])
def test_a_whole_text_counts_every_token_once(model, tiny_tokenizer, n_words):
    answers = HarnessAnswers(model, tiny_tokenizer)
    text = ["the", "cat", "on", "the", "mat", "and", "the", "dog"] * 20
    text = " ".join(text[:n_words])
    windows = list(answers._windows(text))
    ids = [token for window in windows for token in window.continuation]
    assert ids == tiny_tokenizer.encode(text)
    assert windows[0].context == (tiny_tokenizer.end_of_text_id,)
    if len(windows) > 1:  # the last one fills the context: 40 tokens read, the last token only predicted
        assert len(windows[-1].context + windows[-1].continuation) == 41


def test_an_empty_text_is_certain(model, tiny_tokenizer):
    assert HarnessAnswers(model, tiny_tokenizer).loglikelihood_rolling(asked("")) == [0.0]


def test_settings_that_would_be_ignored_are_errors(model, tiny_tokenizer):
    answers = HarnessAnswers(model, tiny_tokenizer)
    with pytest.raises(ConfigError, match="num_beams"):
        answers.generate_until(asked("The cat", {"until": ["."], "num_beams": 4}))
    with pytest.raises(ConfigError, match="40 new tokens"):
        answers.generate_until(asked("The cat", {"max_gen_toks": 40}))


def test_answers_come_back_in_the_order_of_the_questions(model, tiny_tokenizer):
    answers = HarnessAnswers(model, tiny_tokenizer, batch_size=2)
    requests = [
        SimpleNamespace(args=(prompt, {"max_gen_toks": 3 + i % 2})) for i, prompt in enumerate(PROMPTS)
    ]
    assert answers.generate_until(requests) == [answers.generate_until([one])[0] for one in requests]


@needs_harness
@pytest.mark.slow
def test_impossible_numbers_and_broken_task_files_are_told(model, tiny_tokenizer, tasks):
    def ask(*names, **settings):
        run_harness(model, tiny_tokenizer, names, include_path=tasks, **settings)

    with pytest.raises(ConfigError, match="limit must be at least 1, got 0"):
        ask("own_choice", limit=0)
    with pytest.raises(ConfigError, match="n_fewshot must be at least 0, got -1"):
        ask("own_choice", n_fewshot=-1)
    whole = (tasks / "own_choice.yaml").read_text()
    (tasks / "broken.yaml").write_text(
        whole.replace("own_choice", "broken").replace("{{prompt}}", "{{nothing}}")
    )
    with pytest.raises(DataError, match="UndefinedError"):
        ask(str(tasks / "broken.yaml"))
