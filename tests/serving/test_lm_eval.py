"""lm-evaluation-harness with its `local-completions` model: our server scores texts as our Hugging Face export does."""

import json
import os
import subprocess
import sys

import pytest
import torch

from scratchlm.checkpoints.huggingface import export_huggingface
from scratchlm.model import GPTConfig, GPTModel
from scratchlm.serving.language_model import LanguageModel
from tests.serving.conftest import running, served_models

TOLERANCE = 2e-5  # nats; both sum the same float32 numbers in another order
HARNESS = """
import json, sys
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.openai_completions import LocalCompletionsAPI

exported, url, out = sys.argv[1:]
server = LocalCompletionsAPI(
    base_url=url, model="tiny", tokenizer=exported, tokenizer_backend="huggingface", batch_size=4, max_length=40,
    num_concurrent=1, max_retries=1,
)
export = HFLM(pretrained=exported, device="cpu", dtype="float32", batch_size=4)
words = ["the cat", "sat on", "the mat", "and the dog", "on the log", "a", "12 bones", "cat"]
pairs = [(first, " " + second) for first in words for second in words]
found = {}
for name, model in (("server", server), ("export", export)):
    scored = [Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=i) for i, pair in enumerate(pairs)]
    until = {"until": ["dog"], "max_gen_toks": 8, "do_sample": False, "temperature": 0}
    asked = [
        Instance(request_type="generate_until", doc={}, arguments=(word, dict(until)), idx=i)
        for i, word in enumerate(words)
    ]
    found[name] = {"scores": model.loglikelihood(scored), "texts": model.generate_until(asked)}
json.dump(found, open(out, "w"))
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_harness_scores_the_server_as_it_scores_the_export(tiny_tokenizer, tmp_path):
    torch.manual_seed(5)
    size = {"context_length": 40, "emb_dim": 32, "n_heads": 2, "n_layers": 2}
    model = GPTModel(GPTConfig(vocab_size=tiny_tokenizer.vocab_size, **size)).eval()
    exported = export_huggingface(tmp_path / "exported", model, tiny_tokenizer)
    lm = LanguageModel(model, tiny_tokenizer, task={}, folder=tmp_path)
    out = tmp_path / "found.json"
    alone = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TQDM_DISABLE": "1", "NO_PROXY": "127.0.0.1"}
    with running(served_models({"tiny": lm})) as server:
        done = subprocess.run(
            [sys.executable, "-c", HARNESS, str(exported), f"{server.url}/v1/completions", str(out)],
            env=os.environ | alone | {"HF_HOME": str(tmp_path / "hf")},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(out.read_text())
    ours, theirs = found["server"]["scores"], found["export"]["scores"]
    assert len(ours) == 64
    assert [is_greedy for _, is_greedy in ours] == [is_greedy for _, is_greedy in theirs]
    assert [score for score, _ in ours] == pytest.approx([score for score, _ in theirs], abs=TOLERANCE)
    assert found["server"]["texts"] == found["export"]["texts"]
