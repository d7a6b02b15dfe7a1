"""A judge behind OpenAI's protocol as llama.cpp's own server speaks it."""

import subprocess
import sys

import pytest
import torch

from scratchlm.checkpoints.gguf.writer import export_gguf
from scratchlm.core.errors import ServiceError
from scratchlm.evaluation.judge.open_judge import judge_named
from scratchlm.evaluation.judge.service import JudgePatience
from scratchlm.model import GPTConfig, GPTModel
from scratchlm.tokenizers.bpe_trainer import train_bpe

pytest.importorskip("xllamacpp")
pytest.importorskip("openai")

CYCLE = "Score85"  # what the model says, over and over, with an end behind it
# In a process of its own: llama.cpp's server threads keep an interpreter from ending.
SCRIPT = """
import os, sys
import xllamacpp as llama

params = llama.CommonParams()
params.model.path, params.n_ctx, params.n_parallel, params.warmup = sys.argv[1], 256, 1, False
params.n_gpu_layers, params.cpuparams.n_threads, params.verbosity = 0, 1, -1
server = llama.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
os._exit(0)
"""


def model_of_places(tokenizer) -> GPTModel:
    """Says at each place what that place says, whatever was said before: eight in turn, the eighth an end."""
    n_kinds = len(CYCLE) + 1
    config = GPTConfig(vocab_size=tokenizer.vocab_size, context_length=256, emb_dim=32, n_heads=2, n_layers=1)
    model = GPTModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.final_norm.scale.fill_(1.0)
        for place in range(256):
            model.pos_emb.weight[place, place % n_kinds] = 1.0
        [*said] = (tokenizer.encode(character)[0] for character in CYCLE)
        for kind, token in enumerate([*said, tokenizer.end_of_text_id]):
            model.out_head.weight[token, kind] = 1.0
    return model


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    tokenizer = train_bpe(["The cat sat on the mat. " * 40], 300, special_tokens=["<|endoftext|>"])
    path = export_gguf(tmp_path_factory.mktemp("gguf") / "judge.gguf", model_of_places(tokenizer), tokenizer)
    command = [sys.executable, "-c", SCRIPT, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        lines = (line.strip() for line in server.stdout)
        yield next(line for line in lines if line.startswith("http"))
        server.stdin.close()


@pytest.mark.slow
def test_replies_of_llama_cpps_server_are_read_whole(address, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    judge = judge_named(
        "openai:any", base_url=f"{address}/v1", patience=JudgePatience(attempts=2, first_s=60)
    )
    replies = {judge.ask([{"role": "user", "content": "x" * n}]) for n in range(1, 10)}
    assert replies == {CYCLE[start:] for start in range(len(CYCLE) + 1)}
    with pytest.raises(ServiceError, match=r"400: .*context"):
        judge.ask([{"role": "user", "content": "x" * 300}])
