"""Show a data audit in the terminal: tables, a histogram, and the tokens that carry loss in colour."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from scratchlm.reports.formats import count, cut, decimal, percent

BAR_CELLS = 40
BLOCKS = " ▏▎▍▌▋▊▉█"
LEVEL_MARKS = {"bad": ("✗", "bold red"), "look": ("!", "yellow"), "good": ("✓", "green")}
LOSS_STYLES = ("bold green", "bold cyan")  # alternate, to distinguish neighbouring tokens

Figures = Mapping[str, Any]


def show_data_audit(figures: Figures, console: Console) -> None:
    """Print every section for which the audit has statistics."""
    _head(figures, console)
    _lengths(figures, console)
    for part in (_classes, _copies, _overlaps, _odd, _frequent):
        part(figures, console)
    if figures.get("loss"):
        _loss(figures["loss"], console)
    console.print("\nFindings")
    for finding in figures["findings"]:
        mark, style = LEVEL_MARKS[finding["level"]]
        console.print(Text.assemble((f"{mark} ", style), finding["text"]))


def _head(figures: Figures, console: Console) -> None:
    console.print(f"{figures['kind']}: {figures['rows']:,} {figures['unit']}")
    has_tokens = any(split.get("tokens") or split.get("stream") for split in figures["splits"])
    table = Table(Column("split", overflow="fold"), figures["unit"], "bytes")
    for name in ("tokens", "bytes per token") if has_tokens else ():
        table.add_column(name)
    for split in figures["splits"]:
        stream = split.get("stream") or {}
        n_bytes = split.get("text_bytes") or (split.get("bytes") or {}).get("n")
        tokens = split.get("tokens") or stream.get("tokens")
        per_token = split.get("bytes_per_token") or stream.get("bytes_per_token")
        more = (count(tokens), decimal(per_token)) if has_tokens else ()
        table.add_row(split["path"], count(split["rows"]), count(n_bytes), *more)
    console.print(table)
    if figures.get("windows") is not None:
        console.print(
            f"{count(figures['windows'])} training windows of {figures['truncation']['context_length']:,} tokens"
        )


def _lengths(figures: Figures, console: Console) -> None:
    lengths = figures.get("lengths")
    if not lengths:
        return
    unit, histogram = figures["length_unit"], lengths["histogram"]
    console.print(
        f"\nLength in {unit}: mean {decimal(lengths['mean'], 1)}, median {count(lengths['median'])}, 95% up to "
        f"{count(lengths['p95'])}, 99% up to {count(lengths['p99'])}, maximum {count(lengths['max'])}; "
        f"total {count(lengths['total'])}"
    )
    highest = max(histogram["counts"])
    first = next(i for i, n in enumerate(histogram["counts"]) if n)
    context = (figures.get("truncation") or {}).get("context_length")
    for i, (edge, n) in enumerate(zip(histogram["edges"], histogram["counts"])):
        if i < first:
            continue
        is_last = histogram["is_open"] and i == len(histogram["edges"]) - 1
        last = edge + histogram["width"] - 1
        label = f"{edge}+" if is_last else str(edge) if edge == last else f"{edge}-{last}"
        is_over = context is not None and edge > context
        bar = Text(_bar(n / highest), style="red" if is_over else "cyan")
        console.print(Text.assemble(f"{label:>11} ", bar, f" {n:,}"), no_wrap=True)
    for name, part in (figures.get("part_lengths") or {}).items():
        if part:
            console.print(
                f"{name:>11}: mean {decimal(part['mean'], 1)}, median {part['median']:,}, maximum {part['max']:,}"
            )


def _classes(figures: Figures, console: Console) -> None:
    if not figures.get("classes"):
        return
    console.print("\nClasses")
    for row in figures["classes"]:
        console.print(
            Text.assemble(f"{row['label'][:24]:>24} ", (_bar(row["share"]), "cyan"))
            + f" {row['n']:,} ({percent(row['share'])})"
        )
    split = figures.get("split")
    if split:
        sizes = split.get("split") or f"not possible: {split['refused']}"
        console.print(f"Split of `finetune classify`: {sizes}")


def _copies(figures: Figures, console: Console) -> None:
    if "distinct_texts" not in figures:
        return
    near = figures["near_duplicates"]
    distinct, repeats = count(figures["distinct_texts"]), count(figures["exact_duplicates"])
    line = f"Duplicates: {distinct} distinct texts, {repeats} exact repeats"
    if near:
        line += f"; {near['groups']:,} groups of near-duplicates among {near['compared']:,} texts compared"
    console.print(f"\n{line}")
    for row in (near or {}).get("largest", []):
        spellings = "" if row["spellings"] == 1 else f", {row['spellings']} spellings"
        console.print(f"{row['n']:>5} times{spellings}: {cut(row['text'], 100)}")
    for row in (near or {}).get("conflict_examples", []):
        console.print(f"  labels {' and '.join(row['labels'])}: {cut(row['text'], 100)}")


def _overlaps(figures: Figures, console: Console) -> None:
    if not figures.get("overlaps"):
        return
    table = Table(
        Column("rows of", overflow="fold"),
        Column("that are in", overflow="fold"),
        "exactly",
        "at least nearly",
    )
    for pair in figures["overlaps"]:
        near = "not compared" if pair["near"] is None else f"{pair['near']:,} of {pair['compared']:,}"
        table.add_row(pair["second"], pair["first"], f"{pair['exact']:,} of {pair['rows']:,}", near)
    console.print("\nLeakage between splits")
    console.print(table)


def _odd(figures: Figures, console: Console) -> None:
    kinds = [(row["name"].replace("_", " "), row) for row in figures.get("faults") or []]
    kinds += [(row["token"], row) for row in figures.get("special_tokens") or []]
    if not kinds:
        return
    table = Table("kind", "places", figures["unit"], "first place", "text there")
    for name, row in kinds:
        first = row["examples"][0]
        there = Text.assemble(
            _shown(first["before"]), (_shown(first["found"]), "bold red"), _shown(first["after"])
        )
        if first["note"]:
            there.append(f"  ({first['note']})")
        where = first["where"].rsplit("/", maxsplit=1)[-1]
        table.add_row(name, count(row["n"]), count(row["rows"]), where, there)
    console.print("\nUnusual characters and special-token strings")
    console.print(table)


def _frequent(figures: Figures, console: Console) -> None:
    vocabulary = figures.get("vocabulary")
    if not vocabulary:
        return
    frequent = ", ".join(f"{row['token']!r} {row['n']:,}" for row in vocabulary["frequent"])
    console.print(
        f"\n{vocabulary['used']:,} of {vocabulary['size']:,} tokens are used; the most frequent: {frequent}"
    )


def _loss(loss: Figures, console: Console) -> None:
    share = percent(loss["tokens_with_loss"] / loss["tokens"]) if loss["tokens"] else "none"
    console.print(
        f"\n{loss['tokens_with_loss']:,} of {loss['tokens']:,} tokens carry loss ({share}) with the template "
        f"{loss['template']}; they are between « and » below"
    )
    for number, row in enumerate(loss["rows"], start=1):
        text = Text(f"{number}. ", style="dim")
        was_loss = False
        for i, token in enumerate(row["tokens"]):
            if token["loss"] and not was_loss:
                text.append("«", style="dim")
            elif was_loss:
                text.append("|" if token["loss"] else "»", style="dim")
            text.append(token["text"], style=LOSS_STYLES[i % 2] if token["loss"] else "dim")
            was_loss = token["loss"]
        text.append("»" if was_loss else "", style="dim")
        text.append(f"  ({row['n_loss']} of {row['n_tokens']} tokens)", style="dim")
        if row["n_hidden"]:
            text.append(f" without the last {row['n_hidden']:,}", style="dim")
        console.print(text)


def _bar(share: float) -> str:
    """Draw a bar of block characters, exact to an eighth of a cell; a share above 0 is always visible."""
    eighths = max(round(share * BAR_CELLS * 8), 1 if share > 0 else 0)
    return "█" * (eighths // 8) + BLOCKS[eighths % 8].strip()


def _shown(text: str) -> str:
    return text.replace("\n", "⏎").replace("\t", "⇥")
