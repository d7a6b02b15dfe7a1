"""Our benchmark files score as lm-evaluation-harness's own tasks do on the Hugging Face export of the same model."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from scratchlm.checkpoints.huggingface import export_huggingface
from scratchlm.evaluation.task_items import read_task_items
from scratchlm.evaluation.tasks import score_choices, score_cloze
from scratchlm.model import GPTConfig, GPTModel

pytest.importorskip("transformers", reason="transformers is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="lm-eval is not installed"),
]
PROMPTS = [
    "The cat sat",
    "the dog and the",
    "on the log.",
    "The mat and",
    "the cat on the mat and the dog on",
]
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
HARNESS = """
import json, sys
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

exported, folder, out, *names = sys.argv[1:]
result = simple_evaluate(
    model=HFLM(pretrained=exported, device="cpu", dtype="float32", batch_size=4), tasks=names,
    task_manager=TaskManager(include_path=folder, include_defaults=False), bootstrap_iters=0,
)
json.dump(result["results"], open(out, "w"), default=str)
"""


@pytest.fixture(scope="module")
def model(tiny_tokenizer):
    torch.manual_seed(5)
    size = {"context_length": 40, "emb_dim": 32, "n_heads": 2, "n_layers": 2}
    return GPTModel(GPTConfig(vocab_size=tiny_tokenizer.vocab_size, **size)).eval()


def test_files_in_published_forms_score_as_the_harnesss_own_tasks_do(model, tiny_tokenizer, tmp_path):
    exported, folder = export_huggingface(tmp_path / "exported", model, tiny_tokenizer), tmp_path / "tasks"
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
    out = tmp_path / "found.json"
    names = [f"own_{Path(path).stem}" for path in PUBLISHED]
    alone = {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "TQDM_DISABLE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", HARNESS, *map(str, (exported, folder, out)), *names],
        env=os.environ | alone | {"HF_HOME": str(tmp_path / "hf")},
        capture_output=True, text=True, check=False, timeout=250,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = {
        (task, key.partition(",")[0]): value
        for task, figures in json.loads(out.read_text()).items()
        for key, value in figures.items()
    }
    assert {key: found[key] for key in expected} == expected


def brier_score(rows):
    """How far the choices' probabilities are from the answer: unlike accuracy it moves with every log probability."""
    scores = []
    for row in rows:
        probs = torch.tensor(row["log_probs"]).softmax(dim=0)
        probs[row["answer"]] -= 1
        scores.append((probs**2).sum().item())
    return sum(scores) / len(scores)
