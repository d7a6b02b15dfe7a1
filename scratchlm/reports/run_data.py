"""Collect the data of a run's report from its folder."""

import platform
import shlex
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy
import psutil
import torch

from scratchlm import __version__
from scratchlm.checkpoints.store import LoadedModel, list_checkpoints, load_model
from scratchlm.core.config import to_dict
from scratchlm.core.json_table import JSONTable
from scratchlm.data.samples import SAMPLE_NOTICE
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.generate import generate_ids
from scratchlm.inspection.attention_maps import attention_maps
from scratchlm.inspection.traces import token_probabilities
from scratchlm.recipes.recipe import SAMPLES, Recipe, Stage
from scratchlm.recipes.stages import StageRun
from scratchlm.reports.run_page import render_report
from scratchlm.training.history import History

MAX_ATTENTION_TOKENS = 24  # maximum that fits on a phone
EXAMPLE_MESSAGE = "Congratulations, you won a holiday! Text CLAIM to 00193 now"
CURVES = ("tokens", "elapsed_s", "learning_rate", "train_loss", "val_loss", "val_accuracy")
MAX_ANSWERS = 60  # shown in the report; all are in answers.jsonl


def report_data(
    name: str, recipe: Recipe, out: Path, figures: Mapping[Stage, dict[str, Any]], *, device: torch.device
) -> dict[str, Any]:
    """Collect the data for `scratchlm.reports.run_page.render_report`.

    A stage without results, because the run was interrupted, is shown with its curves and samples.
    """
    run = StageRun(recipe=recipe, out=out, device=device, callbacks=(), notify=lambda message: None)
    uses_samples = SAMPLES in (*recipe.data.text, *recipe.data.messages, *recipe.data.instructions)
    seconds = {
        stage: JSONTable(found, where=f"{out}/figures/{stage}.json").need("stage_seconds", float)
        for stage, found in figures.items()
    }
    data: dict[str, Any] = {
        "title": f"scratchlm run: {name}",
        "recipe": name,
        "created_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "sample_data": uses_samples,
        "sample_notice": SAMPLE_NOTICE,
        "stages": [
            {
                "name": stage,
                "seconds": seconds.get(stage),
                "status": "complete" if stage in figures else "interrupted",
            }
            for stage in recipe.stages
        ],
        "peak_memory_bytes": max((found["peak_memory_bytes"] for found in figures.values()), default=None),
        "machine": machine(device),
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "numpy": numpy.__version__,
            "scratchlm": __version__,
        },
        "settings": to_dict(recipe),
        "next": next_commands(recipe, run),
    }
    missing = [stage for stage in recipe.stages if stage not in figures]
    if missing:
        data["unfinished"] = {"stage": missing[0], "command": f"scratchlm run {shlex.quote(str(out))}"}
    else:
        data["seconds"] = sum(seconds.values())
    for stage in recipe.stages:
        history = curves(run.folder(stage))
        if stage in figures or history:
            data[stage] = {**figures.get(stage, {}), "history": history}
    if "instruct" in figures:
        data["instruct"]["answers"] = _some_answers(data["instruct"]["answers"])
    if "prefer" in figures:
        data["prefer"]["answers"] = data["prefer"]["answers"][:MAX_ANSWERS]
    if "pretrain" in data:
        data["pretrain"]["samples"] = samples = History(out / "samples.jsonl").records()
        if "pretrain" in figures:
            data["pretrain"]["val_tokens"] = figures["pretrain"]["scored_tokens"]
        if list_checkpoints(out):
            loaded = load_model(out)
            prompt = samples[-1].get("prompt") if samples else None
            data |= _look_inside(loaded, prompt if isinstance(prompt, str) else recipe.sample_prompt)
            data["pretrain"]["model"] = to_dict(loaded.config)
    return data


def run_report(
    name: str, recipe: Recipe, out: Path, figures: Mapping[Stage, dict[str, Any]], device: torch.device
) -> str:
    """Render the report of a run as one self-contained HTML document."""
    return render_report(report_data(name, recipe, out, figures, device=device))


def curves(folder: Path) -> list[dict[str, Any]]:
    """A stage's metrics, one row per step."""
    rows: dict[int, dict[str, Any]] = {}
    for record in History(folder / "metrics.jsonl").records():
        values = {key: record[key] for key in CURVES if key in record}
        if values:  # a skipped step has none
            rows[record["step"]] = {"step": record["step"], **rows.get(record["step"], {}), **values}
    return [rows[step] for step in sorted(rows)]


def machine(device: torch.device) -> dict[str, Any]:
    """The machine that the figures were measured on."""
    return {
        "cpu": platform.processor() or platform.machine(),
        "cores": psutil.cpu_count(logical=True),
        "threads": torch.get_num_threads(),
        "memory_bytes": psutil.virtual_memory().total,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "os": f"{platform.system()} {platform.release()}",
    }


def next_commands(recipe: Recipe, run: StageRun) -> list[dict[str, str]]:
    """Commands to try after this run."""

    def quoted(stage: Stage) -> str:
        return shlex.quote(str(run.folder(stage)))

    commands: list[tuple[str, str]] = []
    whole_run = shlex.quote(str(run.out))
    judge = "scratchlm evaluate judge --answers {} --judge ollama:llama3"
    judged = "score the answers with Llama 3 in Ollama, as in the book"
    if "pretrain" in recipe.stages:
        prompt = shlex.quote(recipe.sample_prompt or "Once upon a time")
        generate = f"scratchlm generate --model {quoted('pretrain')} --prompt {prompt} --temperature 0.8"
        wider = f"scratchlm run {whole_run} --out runs/wider --model.emb-dim 192"
        commands += [(generate, "continue a text of your own"), (wider, "repeat the run with a wider model")]
    if "classify" in recipe.stages:
        classify = f"scratchlm classify --model {quoted('classify')} {shlex.quote(EXAMPLE_MESSAGE)}"
        commands += [(classify, "classify a text")]
    if "instruct" in recipe.stages:
        chat = f"scratchlm chat --model {quoted('instruct')}"
        commands += [(chat, "chat with the assistant"), (judge.format(whole_run), judged)]
    if "prefer" in recipe.stages:
        chat = f"scratchlm chat --model {quoted('prefer')}"
        tuned = "chat with the preference-tuned assistant"
        commands += [(chat, tuned), (judge.format(quoted("prefer")), judged)]
    models = " ".join(quoted(stage) for stage in recipe.stages)
    commands += [
        (f"scratchlm serve {models} --open", "inspect the models on a web page of this machine"),
        ("scratchlm pretrain --data YOUR_FOLDER --out runs/mine", "train on text of your own"),
        ("tensorboard --logdir runs", "all curves, live"),
    ]
    return [{"command": command, "what": what} for command, what in commands]


def _look_inside(loaded: LoadedModel, prompt: str) -> dict[str, Any]:
    """Generate a text with token probabilities, the attention of one head, and an example of tokens."""
    tokenizer, model = loaded.tokenizer, loaded.model
    end = tokenizer.end_of_text_id
    context = model.config.context_length
    prompt_ids = tokenizer.encode(prompt)[: context - 1] or [end or 0]  # leaves room for one new token
    room = context - len(prompt_ids)
    config = GenerationConfig(
        max_new_tokens=max(1, min(80, room)), temperature=0.8, seed=1, stop_ids=() if end is None else (end,)
    )
    ids = prompt_ids + generate_ids(model, [prompt_ids], config)[0].ids
    seen = token_probabilities(model, ids, n_prompt=len(prompt_ids)) if len(ids) > len(prompt_ids) else []
    shown = ids[:MAX_ATTENTION_TOKENS]
    layer, head, weights = clearest_head(attention_maps(model, torch.tensor([shown])))
    return {
        "coloured": {
            "prompt": prompt,
            "tokens": [
                {
                    "text": tokenizer.decode([token.id]),
                    "probability": token.prob,
                    "alternatives": [[tokenizer.decode([id_]), prob] for id_, prob in token.alternatives],
                }
                for token in seen
            ],
        },
        "attention": {
            "tokens": [tokenizer.decode([id_]) for id_ in shown],
            "layer": layer,
            "head": head,
            "weights": weights,
        },
        "tokenizer": {
            "kind": type(tokenizer).__name__,
            "vocab_size": tokenizer.vocab_size,
            "example": [{"text": tokenizer.decode([id_]), "id": id_} for id_ in ids[:MAX_ATTENTION_TOKENS]],
        },
    }


def clearest_head(maps: torch.Tensor) -> tuple[int, int, list[list[float]]]:
    """The layer, head and weights of the head with the strongest attention to earlier tokens.

    Attention to the token itself and to the first token does not count, since heads use these by default.
    Shapes: maps (L, 1, H, T, T) -> (T, T) weights.
    """
    back = maps[:, 0].tril(diagonal=-1)  # (L, H, T, T)
    back[..., 0] = 0.0
    score = back.max(dim=-1).values.mean(dim=-1)  # (L, H)
    layer, head = divmod(int(score.argmax()), score.shape[1])
    return layer, head, maps[layer, 0, head].tolist()


def _some_answers(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A selection over all skills: the first answer of each, then the second of each, and so on."""
    seen: dict[str, int] = {}
    ranked = []
    for position, answer in enumerate(answers):
        turn = seen[answer["skill"]] = seen.get(answer["skill"], 0) + 1
        ranked.append((turn, position, answer))
    return [answer for _, _, answer in sorted(ranked, key=lambda item: item[:2])[:MAX_ANSWERS]]
