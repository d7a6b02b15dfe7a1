"""Convert models of every family along every path; report the largest logit difference and equal greedy tokens.

    python -m benchmarks.interchange             # prints the table
    python -m benchmarks.interchange --markdown guide/proof_table.md

Models are small and random, biases and norms included. The reference is transformers, and llama.cpp for GGUF, peft for
adapters, onnxruntime for ONNX. A row is one family and one path; paths that end in a language model also count how many
of 50 greedy tokens are equal.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import peft
import transformers

from benchmarks.foreign_models import FAMILIES, VOCAB_SIZE, greedy, random_model, save
from benchmarks.llama_cpp import in_llama_cpp
from scratchlm.checkpoints.conversion import convert
from scratchlm.checkpoints.gguf.reader import read_gguf
from scratchlm.checkpoints.huggingface import export_huggingface
from scratchlm.checkpoints.onnx import ONNXModel
from scratchlm.checkpoints.open_model import import_model, open_model
from scratchlm.checkpoints.store import save_model
from scratchlm.checkpoints.tensorflow.openai import load_params_into, published_config
from scratchlm.core.protocols import Tokenizer
from scratchlm.finetuning.heads import class_logits
from scratchlm.finetuning.peft import export_peft, import_peft
from scratchlm.generation.config import GenerationConfig
from scratchlm.generation.generate import generate_ids
from scratchlm.model.gpt import GPTModel
from scratchlm.tokenizers.bpe_trainer import train_bpe
from tests.checkpoints.tensorflow.golden import arrays as golden
from tests.checkpoints.tensorflow.writer import write_bundle

TOLERANCE = 1e-4  # largest difference of any logit, float32
N_GREEDY = 50
N_PROMPTS, PROMPT_TOKENS, GREEDY_PROMPT = 4, 40, 10
CONTEXT = 64  # that llama.cpp is given
BESIDES = ("gpt2", "llama 2", "qwen 3")  # whose classifiers, adapters and graphs are compared as well
WIDE: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 64, "n_head": 4, "initializer_range": 0.1},
    "llama 2": {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "initializer_range": 0.1,
    },
    "qwen 3": {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "initializer_range": 0.1,
    },
}
GOLDEN = Path(__file__).resolve().parents[1] / "tests" / "checkpoints" / "tensorflow" / "golden"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    family: str
    path: str
    difference: (
        float  # largest of any logit on random prompts; llama.cpp: of the likeliest 20 log-probabilities
    )
    n_equal: int | None  # greedy tokens equal from the first on; None: it does not write


@dataclass(frozen=True, kw_only=True)
class Case:
    """The transformers model of one family, and a folder for its files."""

    family: str
    theirs: Any
    tokenizer: Tokenizer
    folder: Path


def state(model: Any) -> dict[str, Any]:
    """A model's weights as NumPy arrays."""
    return {name: tensor.detach().numpy().copy() for name, tensor in model.state_dict().items()}


def as_folder(case: Case) -> GPTModel:
    """A Hugging Face folder."""
    return import_model(save(case.theirs, case.folder / "hf", case.tokenizer)).model


def as_shards(case: Case) -> GPTModel:
    """The same in several files."""
    return import_model(
        save(case.theirs, case.folder / "shards", case.tokenizer, max_shard_size="30KB")
    ).model


def as_bin(case: Case) -> GPTModel:
    """`pytorch_model.bin`."""
    folder = case.folder / "bin"
    case.theirs.config.save_pretrained(folder)
    torch.save(case.theirs.state_dict(), folder / "pytorch_model.bin")
    case.tokenizer.save(folder / "tokenizer.json")
    return import_model(folder).model


def as_params(case: Case) -> GPTModel:
    """The book's nested arrays, as read from OpenAI's checkpoint."""
    arrays: dict[str, Any] = {"blocks": [{} for _ in range(case.theirs.config.n_layer)]}
    for name, array in state(case.theirs).items():
        parts = name.removeprefix("transformer.").split(".")
        if parts[0] == "lm_head":
            continue
        target = arrays
        if parts[0] == "h":
            target, parts = arrays["blocks"][int(parts[1])], parts[2:]
        is_norm = parts[-2].startswith("ln_")
        last = {"weight": "g" if is_norm else "w", "bias": "b"}[parts[-1]]
        inner = parts[:-1]
        if inner[0] in ("wte", "wpe"):
            inner, last = [], inner[0]
        elif inner[0] == "ln_f":
            inner = []
        for key in inner:
            target = target.setdefault(key, {})
        target[last] = array
    theirs = case.theirs.config
    config = published_config(
        vocab_size=theirs.vocab_size,
        context_length=theirs.n_positions,
        emb_dim=theirs.n_embd,
        n_heads=theirs.n_head,
        n_layers=theirs.n_layer,
    )
    model = GPTModel(config)
    load_params_into(model, arrays)
    return model


def openai_arrays(case: Case) -> dict[str, Any]:
    """The arrays under the names of OpenAI's checkpoint, `model/h0/attn/c_attn/w` and so on."""
    arrays: dict[str, Any] = {}
    for name, array in state(case.theirs).items():
        parts = name.removeprefix("transformer.").split(".")
        if parts[0] == "lm_head":
            continue
        if parts[0] == "h":
            parts[:2] = [f"h{parts[1]}"]
        if parts[0] in ("wte", "wpe"):
            parts = parts[:1]
        elif parts[-1] == "weight":
            parts[-1] = "g" if parts[-2].startswith("ln_") else "w"
        else:
            parts[-1] = "b"
        is_matrix = parts[-1] == "w"
        arrays["model/" + "/".join(parts)] = (
            array[None] if is_matrix else array
        )  # (1, in, out), as OpenAI has it
    return arrays


def as_tensorflow(case: Case) -> GPTModel:
    """A TensorFlow checkpoint as in OpenAI's folders: index and data with their checksums."""
    folder = case.folder / "tensorflow"
    folder.mkdir(parents=True)
    write_bundle(folder / "model.ckpt", openai_arrays(case))
    config = case.theirs.config
    sizes = {"n_ctx": config.n_positions, "n_embd": config.n_embd, "n_head": config.n_head}
    settings = {"n_vocab": config.vocab_size, "n_layer": config.n_layer, **sizes}
    (folder / "hparams.json").write_text(json.dumps(settings), encoding="utf-8")
    case.tokenizer.save(folder / "tokenizer.json")
    return import_model(folder).model


def as_tensorflows_own(case: Case) -> GPTModel:
    """The checkpoint that TensorFlow itself wrote, in tests/checkpoints; `case.theirs` has its numbers."""
    folder = case.folder / "golden"
    folder.mkdir(parents=True)
    for file in GOLDEN.glob("gpt2.ckpt.*"):
        shutil.copy(file, folder / file.name)
    settings = {"n_vocab": golden.V, "n_ctx": golden.T, "n_embd": golden.E, "n_head": golden.N_HEADS}
    (folder / "hparams.json").write_text(
        json.dumps({**settings, "n_layer": golden.N_LAYERS}), encoding="utf-8"
    )
    case.tokenizer.save(folder / "tokenizer.json")
    return import_model(folder).model


def golden_model() -> Any:
    """transformers' GPT-2 with the numbers that the golden checkpoint holds."""
    config = transformers.GPT2Config(
        vocab_size=golden.V,
        n_positions=golden.T,
        n_embd=golden.E,
        n_head=golden.N_HEADS,
        n_layer=golden.N_LAYERS,
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    weights = model.state_dict()
    for name, array in golden.gpt2().items():
        parts = name.removeprefix("model/").split("/")
        if parts[0][0] == "h":
            parts[:1] = ["h", parts[0][1:]]
        if parts[0] in ("wte", "wpe"):
            parts.append("weight")
        else:
            parts[-1] = "bias" if parts[-1] == "b" else "weight"
        weights["transformer." + ".".join(parts)].copy_(torch.from_numpy(np.squeeze(array)))
    return model


def as_one_file(case: Case) -> GPTModel:
    """A single `.safetensors` file, with Hugging Face's settings beside it."""
    return import_model(
        save(case.theirs, case.folder / "one_file", case.tokenizer) / "model.safetensors"
    ).model


def as_native(case: Case) -> GPTModel:
    """Our own folder."""
    loaded = import_model(save(case.theirs, case.folder / "for_native", case.tokenizer))
    return open_model(save_model(case.folder / "native", loaded.model, loaded.tokenizer)).model


def as_book_file(case: Case) -> GPTModel:
    """The book's `.pth`, with its masks, and the settings that convert writes beside it."""
    loaded = import_model(save(case.theirs, case.folder / "for_book", case.tokenizer))
    return import_model(convert(loaded, case.folder / "book" / "model.pth", to="book").out).model


def as_npz(case: Case) -> GPTModel:
    """An `.npz` with Hugging Face's names."""
    folder = case.folder / "npz"
    case.theirs.config.save_pretrained(folder)
    np.savez(folder / "model.npz", **state(case.theirs))  # type: ignore[arg-type]
    case.tokenizer.save(folder / "tokenizer.json")
    return import_model(folder / "model.npz").model


def as_gguf(case: Case) -> GPTModel:
    """A GGUF of ours, read back."""
    loaded = import_model(save(case.theirs, case.folder / "for_gguf", case.tokenizer))
    return read_gguf(convert(loaded, case.folder / "gguf" / "model.gguf", to="gguf", dtype="f32").out).model


WAYS_IN: dict[str, Callable[[Case], GPTModel]] = {
    "Hugging Face folder": as_folder,
    "Hugging Face shards": as_shards,
    "pytorch_model.bin": as_bin,
    "one .safetensors": as_one_file,
    ".npz": as_npz,
    "model folder": as_native,
    "GGUF f32": as_gguf,
}
GPT2_WAYS_IN: dict[str, Callable[[Case], GPTModel]] = {
    "OpenAI's arrays": as_params,
    "TensorFlow checkpoint": as_tensorflow,
}
BOOK_WAYS_IN: dict[str, Callable[[Case], GPTModel]] = {"the book's .pth": as_book_file}


def ours_greedy(model: GPTModel, ids: list[int]) -> list[int]:
    """The greedy continuation by our model."""
    return list(generate_ids(model, [ids], GenerationConfig(max_new_tokens=N_GREEDY))[0].ids)


def n_equal(first: list[int], second: list[int]) -> int:
    """The number of equal tokens before the first difference."""
    return next((i for i, (a, b) in enumerate(zip(first, second)) if a != b), min(len(first), len(second)))


def compared(case: Case, path: str, ours: GPTModel, theirs: Any, prompts: torch.Tensor) -> Row:
    """One row of the table: our model compared with transformers'."""
    with torch.no_grad():
        difference = (ours.eval()(prompts) - theirs(prompts).logits).abs().max().item()
    ids = prompts[0, :GREEDY_PROMPT].tolist()
    same = n_equal(ours_greedy(ours, ids), greedy(theirs, ids, N_GREEDY))
    return Row(family=case.family, path=path, difference=difference, n_equal=same)


def in_llama(case: Case, dtype: str, prompts: torch.Tensor) -> Row:
    """Our GGUF file in llama.cpp, compared with our model of the same quantized weights."""
    loaded = import_model(save(case.theirs, case.folder / f"for_{dtype}", case.tokenizer))
    done = convert(loaded, case.folder / dtype / "model.gguf", to="gguf", dtype=dtype)  # type: ignore[arg-type]
    ids = prompts[0, :GREEDY_PROMPT].tolist()
    ours = read_gguf(done.out).model
    expected = ours_greedy(ours, ids)
    asked = [ids[:n] for n in range(len(ids), 2, -1)]
    theirs = in_llama_cpp(done.out, prompts=asked)
    written = theirs["written"][0]
    with torch.no_grad():
        ours_odds = [ours.eval()(torch.tensor([prompt]))[0, -1].log_softmax(dim=-1) for prompt in asked]
    end = loaded.tokenizer.end_of_text_id
    if end in expected:  # where llama.cpp stops
        expected = expected[: expected.index(end) + 1]
    same = n_equal(expected, written)
    return Row(
        family=case.family,
        path=f"GGUF {dtype} -> llama.cpp",
        difference=max(  # a text that ends at once comes without odds
            abs(log_prob - expected_odds[id_].item())
            for odds, expected_odds in zip(theirs["log_probs"], ours_odds, strict=True)
            for id_, log_prob in odds
        ),
        n_equal=N_GREEDY if same == len(expected) else same,
    )


def as_classifier(case: Case, prompts: torch.Tensor) -> Iterator[Row]:
    """transformers' sequence classifier in, and ours out; scores at the last token."""
    folder = save(case.theirs, case.folder / "for_classifier", case.tokenizer)
    torch.manual_seed(1)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=3, pad_token_id=VOCAB_SIZE - 1
    ).eval()
    loaded = import_model(save(theirs, case.folder / "classifier", case.tokenizer))
    yield scored(case, "sequence classifier ->", loaded.model, theirs, prompts)
    out = export_huggingface(case.folder / "classifier_out", loaded.model, case.tokenizer, task=loaded.task)
    reloaded = transformers.AutoModelForSequenceClassification.from_pretrained(out).eval()
    yield scored(case, "-> sequence classifier", loaded.model, reloaded, prompts)


def scored(case: Case, path: str, ours: GPTModel, theirs: Any, prompts: torch.Tensor) -> Row:
    """A row that compares class scores."""
    with torch.no_grad():
        difference = (
            (class_logits(ours.eval(), prompts, None) - theirs.eval()(prompts).logits).abs().max().item()
        )
    return Row(family=case.family, path=path, difference=difference, n_equal=None)


def through_peft(case: Case, prompts: torch.Tensor) -> Iterator[Row]:
    """peft's adapter in, and ours out, for a language model and for a classifier."""
    folder = save(case.theirs, case.folder / "for_peft", case.tokenizer)
    is_gpt2 = case.family.startswith("gpt2")
    for kind, is_classifier in (("CAUSAL_LM", False), ("SEQ_CLS", True)):
        auto = (
            transformers.AutoModelForSequenceClassification
            if is_classifier
            else transformers.AutoModelForCausalLM
        )
        extra = {"num_labels": 3, "pad_token_id": VOCAB_SIZE - 1} if is_classifier else {}
        compare = scored if is_classifier else compared
        torch.manual_seed(2)
        settings = peft.LoraConfig(r=3, lora_alpha=7, task_type=kind, fan_in_fan_out=is_gpt2)
        theirs = peft.get_peft_model(auto.from_pretrained(folder, **extra).eval(), settings)
        for name, parameter in theirs.named_parameters():
            if ".lora_B." in name:
                torch.nn.init.normal_(parameter, std=0.1)
        theirs.save_pretrained(case.folder / f"adapter_{kind}")
        ours = import_model(folder).model
        import_peft(ours, case.folder / f"adapter_{kind}")
        yield compare(case, f"peft {kind} ->", ours, theirs, prompts)
        out = export_peft(case.folder / f"our_adapter_{kind}", ours)
        torch.manual_seed(2)
        again = peft.PeftModel.from_pretrained(auto.from_pretrained(folder, **extra).eval(), out)
        yield compare(case, f"-> peft {kind}", ours, again, prompts)


def as_onnx(case: Case, prompts: torch.Tensor) -> Row:
    """Our graph in onnxruntime, compared with transformers' model."""
    loaded = import_model(save(case.theirs, case.folder / "for_onnx", case.tokenizer))
    done = convert(loaded, case.folder / "onnx" / "model.onnx", to="onnx")
    graph = ONNXModel(done.out, loaded.config)
    with torch.no_grad():
        difference = (graph(prompts) - case.theirs(prompts).logits).abs().max().item()
    return Row(family=case.family, path="-> ONNX", difference=difference, n_equal=None)


def rows(folder: Path) -> Iterator[Row]:
    """The whole table, row by row."""
    tokenizer = tokenizer_of(VOCAB_SIZE - 10)
    prompts = torch.randint(
        0, tokenizer.vocab_size, (N_PROMPTS, PROMPT_TOKENS), generator=torch.Generator().manual_seed(3)
    )
    for family in FAMILIES:
        case = Case(
            family=family,
            theirs=random_model(family),
            tokenizer=tokenizer,
            folder=folder / family.replace(" ", "_").replace(",", ""),
        )
        is_plain_gpt2 = family == "gpt2"
        ways: Mapping[str, Callable[[Case], GPTModel]] = {
            **WAYS_IN,
            **(GPT2_WAYS_IN if is_plain_gpt2 else {}),
            **(BOOK_WAYS_IN if family.startswith("gpt2") and "gelu" not in family else {}),
        }
        for path, way in ways.items():
            if path.startswith("GGUF") and not _fits_gguf(family):
                continue
            yield compared(case, f"{path} ->", way(case), case.theirs, prompts)
        loaded = import_model(save(case.theirs, case.folder / "out_source", tokenizer))
        out = export_huggingface(case.folder / "out", loaded.model, tokenizer)
        reloaded = transformers.AutoModelForCausalLM.from_pretrained(out).eval()
        yield compared(case, "-> Hugging Face folder", loaded.model, reloaded, prompts)
        if _fits_gguf(family):
            yield in_llama(case, "f32", prompts)
            yield in_llama(case, "f16", prompts)
        if family in WIDE:  # blocks of 32 numbers share a scale
            wide = random_model(family, **WIDE[family])
            yield in_llama(
                Case(family=family, theirs=wide, tokenizer=tokenizer, folder=case.folder / "wide"),
                "q8_0",
                prompts,
            )
        if family in BESIDES:
            yield as_onnx(case, prompts)
            yield from as_classifier(case, prompts)
            yield from through_peft(case, prompts)
    case = Case(
        family="gpt2", theirs=golden_model(), tokenizer=tokenizer_of(golden.V), folder=folder / "golden"
    )
    short = prompts[:, : golden.T] % golden.V  # too few positions to write 50 tokens
    with torch.no_grad():
        difference = (as_tensorflows_own(case)(short) - case.theirs(short).logits).abs().max().item()
    yield Row(family="gpt2", path="TensorFlow's own file ->", difference=difference, n_equal=None)


def tokenizer_of(vocab_size: int) -> Tokenizer:
    """A byte-pair encoding with at most this many tokens."""
    text = "the cat sat on the mat and the dog sat by the door of 12 rooms, wasn't it?"
    return train_bpe([text] * 3, vocab_size, special_tokens=["<|endoftext|>"])


def _fits_gguf(family: str) -> bool:
    """llama.cpp's GPT-2 has the tanh GELU only, and its Llama no biases in the feed-forward layer."""
    return "exact" not in family and "biases" not in family


def as_markdown(table: list[Row]) -> str:
    """The table in the format of the guide."""
    lines = [
        "| family | path | largest difference | equal greedy tokens of 50 |",
        "|---|---|---|---|",
    ]
    for row in table:
        lines.append(
            f"| {row.family} | {row.path} | {row.difference:.1e} | {'' if row.n_equal is None else row.n_equal} |"
        )
    return "\n".join(lines) + "\n"


def is_missed(row: Row) -> bool:
    """Whether a row is outside its tolerance.

    llama.cpp looks GELU up in a table of float16, and with float16 weights rounds the activations too: with
    float32 weights the tokens must be equal, with float16 ones nothing is promised.
    """
    is_other_text = row.n_equal is not None and row.n_equal < N_GREEDY
    if "llama.cpp" in row.path:
        return "f32" in row.path and is_other_text
    return row.difference > TOLERANCE or is_other_text


def main() -> int:
    """Print the table; exit code 1 if a row is outside its tolerance."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--markdown", type=Path, help="write the table here as well")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    table = []
    with tempfile.TemporaryDirectory() as folder:
        for row in rows(Path(folder)):
            table.append(row)
            sys.stderr.write(f"{row.family}: {row.path}\n")
    text = json.dumps([row.__dict__ for row in table]) + "\n" if arguments.json else as_markdown(table)
    sys.stdout.write(text)
    if arguments.markdown is not None:
        arguments.markdown.write_text(as_markdown(table), encoding="utf-8")
    missed = [row for row in table if is_missed(row)]
    for row in missed:
        sys.stderr.write(f"MISSED: {row}\n")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
