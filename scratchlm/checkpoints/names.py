"""Map other programs' names of weights to ours, with a table for each family of models.

A row has their name, our names, and the layout of the array. In a block, names are relative to the block's.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from scratchlm.core.errors import CheckpointError

QUERY_KEY_VALUE = ("query", "key", "value")
MAX_LISTED = 12  # maximum number of names in one message


class Layout(Enum):
    """The conversion of their array to ours."""

    AS_IS = "as it is"
    TRANSPOSED = "(in, out) becomes (out, in)"  # TensorFlow's and Conv1D's matrices
    THREE_COLUMNS = "(in, 3 out) becomes three of (out, in)"  # queries, keys and values side by side
    THREE_ROWS = "(3 out, ...) becomes three of (out, ...)"


@dataclass(frozen=True)
class Row:
    """One of their weights, and our weights that it contains."""

    theirs: str
    ours: tuple[str, ...]
    layout: Layout = Layout.AS_IS


@dataclass(frozen=True)
class NameTable:
    """The names of a family's weights, outside the blocks and in every block."""

    whole: tuple[Row, ...]
    block: tuple[Row, ...]
    of_block: str = "trf_blocks.{i}."  # their names in block i begin so, after a prefix; ours as here
    prefixes: tuple[str, ...] = ("",)  # the first is used for writing, all for reading
    unprefixed: frozenset[str] = frozenset()  # their names that never have the prefix
    ignored: re.Pattern[str] = re.compile(r"(?!)")  # buffers that are not trained, such as a mask

    def rows(self, n_layers: int) -> Iterator[Row]:
        """All rows, with the number of the block filled in."""
        yield from self.whole
        for i in range(n_layers):
            for row in self.block:
                ours = tuple(f"trf_blocks.{i}.{name}" for name in row.ours)
                yield Row(self.of_block.format(i=i) + row.theirs, ours, row.layout)


def _gpt2(matrix: Layout, three: Layout) -> NameTable:
    """Hugging Face's names; its Conv1D stores matrices as (in, out), some copies store them as (out, in)."""
    norms = (("weight", "scale"), ("bias", "shift"))
    linear = (("attn.c_proj", "att.out_proj"), ("mlp.c_fc", "ff.layers.0"), ("mlp.c_proj", "ff.layers.2"))
    return NameTable(
        whole=(
            Row("wte.weight", ("tok_emb.weight",)),
            Row("wpe.weight", ("pos_emb.weight",)),
            *(Row(f"ln_f.{theirs}", (f"final_norm.{ours}",)) for theirs, ours in norms),
            Row("lm_head.weight", ("out_head.weight",)),
            Row("score.weight", ("out_head.weight",)),
        ),
        block=(
            *(Row(f"ln_{n}.{theirs}", (f"norm{n}.{ours}",)) for n in (1, 2) for theirs, ours in norms),
            *(
                Row(f"attn.c_attn.{part}", tuple(f"att.W_{name}.{part}" for name in QUERY_KEY_VALUE), layout)
                for part, layout in (("weight", three), ("bias", Layout.THREE_ROWS))
            ),
            *(Row(f"{theirs}.weight", (f"{ours}.weight",), matrix) for theirs, ours in linear),
            *(Row(f"{theirs}.bias", (f"{ours}.bias",)) for theirs, ours in linear),
        ),
        of_block="h.{i}.",
        prefixes=("transformer.", ""),
        unprefixed=frozenset({"lm_head.weight", "score.weight"}),
        ignored=re.compile(r"(.*\.)?h\.\d+\.attn\.(bias|masked_bias)"),
    )


GPT2 = _gpt2(Layout.TRANSPOSED, Layout.THREE_COLUMNS)
GPT2_LINEAR = _gpt2(Layout.AS_IS, Layout.THREE_ROWS)


def _openai(row: Row) -> Row:
    """Hugging Face's names come from OpenAI's, such as `attn/c_attn/w`, `ln_1/g` and `wte`."""
    layer, _, part = row.theirs.rpartition(".")
    weight = "" if layer in ("wte", "wpe") else "/g" if "ln_" in layer else "/w"
    name = layer.replace(".", "/") + ("/b" if part == "bias" else weight)
    return Row(name, row.ours, row.layout)


OPENAI = NameTable(  # of the TensorFlow checkpoints; also the book's nested dictionaries joined by slashes
    whole=tuple(_openai(row) for row in GPT2.whole if row.ours != ("out_head.weight",)),
    block=tuple(_openai(row) for row in GPT2.block),
    of_block="h{i}/",
    prefixes=("model/", ""),
)

LLAMA = NameTable(  # Llama, Mistral, Qwen 2 and 3, SmolLM 2
    whole=(
        Row("embed_tokens.weight", ("tok_emb.weight",)),
        Row("norm.weight", ("final_norm.scale",)),
        Row("lm_head.weight", ("out_head.weight",)),
        Row("score.weight", ("out_head.weight",)),
    ),
    block=(
        Row("input_layernorm.weight", ("norm1.scale",)),
        *(
            Row(f"self_attn.{theirs}_proj.{part}", (f"att.{ours}.{part}",))
            for theirs, ours in (("q", "W_query"), ("k", "W_key"), ("v", "W_value"), ("o", "out_proj"))
            for part in ("weight", "bias")
        ),
        Row("self_attn.q_norm.weight", ("att.query_norm.scale",)),
        Row("self_attn.k_norm.weight", ("att.key_norm.scale",)),
        Row("post_attention_layernorm.weight", ("norm2.scale",)),
        *(
            Row(f"mlp.{name}_proj.{part}", (f"ff.{name}.{part}",))
            for name in ("gate", "up", "down")
            for part in ("weight", "bias")
        ),
    ),
    of_block="layers.{i}.",
    prefixes=("model.", ""),
    unprefixed=frozenset({"lm_head.weight", "score.weight"}),
    ignored=re.compile(r".*rotary_emb\.inv_freq"),
)

OURS = NameTable(whole=(), block=())  # also the names of the book's GPTModel

BOOK_LLAMA = NameTable(  # the Llama 2, Llama 3 and Qwen 3 that the book builds in its bonus chapters
    whole=(
        Row("tok_emb.weight", ("tok_emb.weight",)),
        Row("final_norm.weight", ("final_norm.scale",)),
        Row("final_norm.scale", ("final_norm.scale",)),
        Row("out_head.weight", ("out_head.weight",)),
    ),
    block=(
        *(
            Row(f"att.{name}.{part}", (f"att.{name}.{part}",))
            for name in ("W_query", "W_key", "W_value", "out_proj")
            for part in ("weight", "bias")
        ),
        Row("att.q_norm.scale", ("att.query_norm.scale",)),
        Row("att.k_norm.scale", ("att.key_norm.scale",)),
        *(
            Row(f"norm{i}.{part}", (f"norm{i}.scale",))  # of nn.RMSNorm, of the book's own
            for i in (1, 2)
            for part in ("weight", "scale")
        ),
        Row("ff.fc1.weight", ("ff.gate.weight",)),
        Row("ff.fc2.weight", ("ff.up.weight",)),
        Row("ff.fc3.weight", ("ff.down.weight",)),
    ),
    ignored=re.compile(r"(?:.*\.)?(?:mask|cos|sin)"),
)


def to_ours(
    table: NameTable, theirs: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]], *, where: str
) -> dict[str, Tensor]:
    """Convert their weights to our names, as float32 copies, reading one at a time.

    expected: the shapes of our model's weights; a weight that it lacks is unexpected in the file.
    Raises: CheckpointError listing every weight that is missing, unexpected or of another shape.
    """
    fitting = (p for p in table.prefixes if any(p + row.theirs in theirs for row in table.whole))
    prefix = next(fitting, table.prefixes[0])
    numbers = (int(match[1]) for name in expected if (match := _BLOCK_NUMBER.match(name)))
    n_layers = 1 + max(numbers, default=-1)
    ours: dict[str, Tensor] = {}
    used: set[str] = set()
    misshapen: list[str] = []
    for row in table.rows(n_layers):
        name = row.theirs if row.theirs in table.unprefixed else prefix + row.theirs
        wanted = [ours_name for ours_name in row.ours if ours_name in expected]
        if not wanted or name not in theirs:
            continue
        used.add(name)
        array = theirs[name]
        parts = split(array, row)
        shapes = [expected[ours_name] for ours_name in wanted]
        if len(wanted) != len(row.ours) or [tuple(part.shape) for part in parts] != shapes:
            misshapen.append(f"{name} {tuple(array.shape)}")
            parts = [torch.empty(0)] * len(row.ours)
        for ours_name, part in zip(row.ours, parts, strict=True):
            ours[ours_name] = part.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        del array, parts
    missing = sorted(expected.keys() - ours.keys())
    unexpected = sorted(name for name in theirs.keys() - used if not table.ignored.fullmatch(name))
    _raise_for(where, missing, unexpected, misshapen)
    return ours


_BLOCK_NUMBER = re.compile(r"trf_blocks\.(\d+)\.")


def to_theirs(table: NameTable, ours: Mapping[str, Tensor], n_layers: int) -> dict[str, Tensor]:
    """Convert our weights to the family's names and layout.

    Where several rows hold the same weight, as a language model's and a classifier's head, the first one is used.
    Raises: CheckpointError for weights that the family lacks.
    """
    theirs: dict[str, Tensor] = {}
    used: set[str] = set()
    for row in table.rows(n_layers):
        if not all(name in ours for name in row.ours) or used & set(row.ours):
            continue
        used |= set(row.ours)
        name = row.theirs if row.theirs in table.unprefixed else table.prefixes[0] + row.theirs
        theirs[name] = _join([ours[part] for part in row.ours], row.layout)
    left = sorted(ours.keys() - used)
    if left:
        raise CheckpointError(
            f"the target format has no name for {first_names(left)}; keep the model as a model folder."
        )
    return theirs


def check_shapes(
    expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], *, where: str
) -> None:
    """Compare the shapes of the weights that a model needs with those of a file.

    Raises: CheckpointError listing every one that is missing, unexpected or of another shape.
    """
    misshapen = [
        f"{name} {found[name]} instead of {expected[name]}"
        for name in sorted(expected.keys() & found.keys())
        if expected[name] != found[name]
    ]
    missing, unexpected = expected.keys() - found.keys(), found.keys() - expected.keys()
    _raise_for(where, sorted(missing), sorted(unexpected), misshapen)


def first_names(names: list[str]) -> str:
    """The first few names, and the number of the others."""
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(f"{name:.120}" for name in names[:MAX_LISTED]) + more


def _raise_for(where: str, missing: list[str], unexpected: list[str], misshapen: list[str]) -> None:
    wrong = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen}
    problems = [f"{what}: {first_names(names)}" for what, names in wrong.items() if names]
    if problems:
        raise CheckpointError(
            f"the weights in {where} do not fit its config; {'; '.join(problems)}; they do not belong together, or a "
            "file is cut short."
        )


def split(array: Tensor, row: Row) -> list[Tensor]:
    """Our weights in one of their arrays: a single one, or queries, keys and values."""
    change: Callable[[Tensor], list[Tensor]] = {
        Layout.AS_IS: lambda a: [a],
        Layout.TRANSPOSED: lambda a: [a.T],
        Layout.THREE_COLUMNS: lambda a: [part.T for part in a.chunk(3, dim=1)],
        Layout.THREE_ROWS: lambda a: list(a.chunk(3, dim=0)),
    }[row.layout]
    if row.layout is not Layout.AS_IS and array.dim() == 3 and array.shape[0] == 1:
        array = array[0]  # TensorFlow's one-dimensional convolution
    if (row.layout in (Layout.TRANSPOSED, Layout.THREE_COLUMNS) and array.dim() != 2) or array.dim() == 0:
        return [array]
    return change(array)


def _join(parts: list[Tensor], layout: Layout) -> Tensor:
    if layout is Layout.AS_IS:
        return parts[0]
    if layout is Layout.TRANSPOSED:
        return parts[0].T.contiguous()
    if layout is Layout.THREE_COLUMNS:
        return torch.cat([part.T for part in parts], dim=1)
    return torch.cat(parts, dim=0)
