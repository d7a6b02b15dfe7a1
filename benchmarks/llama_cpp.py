"""Log-probabilities and greedy tokens of llama.cpp for a GGUF file, through its Python binding."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# In a separate process: llama.cpp's server threads keep an interpreter from exiting.
# The cache in float32 and no flash attention: otherwise keys and values are rounded to float16.
SCRIPT = """
import json, os, sys, urllib.request
import xllamacpp as llama

job = json.load(sys.stdin)
params = llama.CommonParams()
params.model.path, params.n_ctx, params.n_parallel, params.warmup = job["path"], job["n_ctx"], 1, False
params.n_gpu_layers, params.cpuparams.n_threads, params.verbosity = 0, 1, -1
params.cache_type_k = params.cache_type_v = llama.ggml_type.GGML_TYPE_F32
params.flash_attn_type = llama.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
server = llama.Server(params)

def ask(path, body):
    head = {"Content-Type": "application/json"}
    request = urllib.request.Request(server.listening_address + path, json.dumps(body).encode(), head)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)

result = {"ids": [ask("/tokenize", {"content": t, "parse_special": False})["tokens"] for t in job["texts"]]}
greedy = {"n_predict": job["n_new"], "temperature": 0, "top_k": 1, "ignore_eos": False, "return_tokens": True}
odds = {"n_predict": 1, "temperature": 0, "n_probs": 20}
first = [ask("/completion", {"prompt": p, **odds}) for p in job["prompts"]]
result["log_probs"] = [
    [(o["id"], o["logprob"]) for shown in one.get("completion_probabilities", [])[:1] for o in shown["top_logprobs"]]
    for one in first
]
result["written"] = [ask("/completion", {"prompt": p, **greedy})["tokens"] for p in job["prompts"]]
if job["question"]:
    body = {"messages": [{"role": "user", "content": job["question"]}]}
    result["prompt"] = ask("/apply-template", body)["prompt"]
print(json.dumps(result))
sys.stdout.flush()
os._exit(0)
"""
N_NEW = 50


def in_llama_cpp(
    path: Path, *, prompts: Sequence[Sequence[int]] = (), texts: Sequence[str] = (), question: str = ""
) -> dict[str, Any]:
    """Ids of the texts, and for each prompt the greedy continuation and the log-probabilities of the next token."""
    job = {
        "path": str(path),
        "n_ctx": 64,
        "n_new": N_NEW,
        "prompts": prompts,
        "texts": texts,
        "question": question,
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result
