"""Explain in sentences what the statistics of the audit mean for training."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

Figures = Mapping[str, Any]
Level = Literal["bad", "look", "good"]

SEPARATOR_HINT = " If one separates documents, name it with --document-separator."
MANY_OF_ONE_CLASS = 0.8  # share of the largest class from which accuracy alone is misleading
LONGER_IS_BETTER = 0.6  # share of longer chosen answers, from which a model may learn length


def findings(figures: Figures) -> list[dict[str, str]]:
    """Sentences with their level, the worst first: `bad` damages training or tests, `look` needs attention.

    Example:
        >>> findings({"kind": "text", "unit": "paragraphs", "rows": 3, "splits": []})
        [{'level': 'good', 'text': 'No problems found.'}]
    """
    parts = (_readability, _classes, _copies, _leaks, _fit, _loss, _pairs, _characters)
    found = [(level, text) for part in parts for level, text in part(figures)]
    order = ("bad", "look", "good")
    ordered = sorted(found, key=lambda item: order.index(item[0])) or [("good", "No problems found.")]
    return [{"level": level, "text": text} for level, text in ordered]


def _readability(figures: Figures) -> Iterator[tuple[Level, str]]:
    for split in figures["splits"]:
        if split.get("refused"):
            yield "bad", f"Training would stop with an error: {split['refused']}"
        yield from (("look", note) for note in split.get("notes") or ())
        content = split.get("bytes") or {}
        if content.get("invalid_utf8"):
            yield (
                "bad",
                f"{split['path']} has {content['invalid_utf8']:,} bytes that are not UTF-8, the first at offset "
                f"{content['first_invalid']:,}; convert it, e.g. `iconv -f WINDOWS-1252 -t UTF-8`.",
            )
        if content.get("zero"):
            yield "bad", f"{split['path']} has {content['zero']:,} zero bytes; it may not be text."
        if content.get("byte_order_mark"):
            yield "look", f"{split['path']} begins with a byte-order mark, which the readers drop."
        ends = {name: content[name] for name in ("lf", "crlf", "cr") if content.get(name)}
        if set(ends) - {"lf"} and figures["kind"] == "text":  # the readers of rows drop them
            listed = ", ".join(f"{n:,} {name.upper()}" for name, n in ends.items())
            yield (
                "look",
                f"{split['path']} has different line ends ({listed}), and a model learns each kind separately; use LF "
                "only.",
            )
    n_unusable = figures.get("unusable", {}).get("n", 0)
    if n_unusable:
        first = next(iter(figures["unusable"]["complaints"]), "")
        yield (
            "bad",
            f"{n_unusable:,} rows cannot be used and are not counted in the figures; the first: {first}.",
        )


def _classes(figures: Figures) -> Iterator[tuple[Level, str]]:
    classes = figures.get("classes")
    if not classes:
        return
    if len(classes) == 1:
        yield (
            "bad",
            f"All rows have the label {classes[0]['label']!r}: a classifier needs at least two classes.",
        )
    elif figures["majority"] >= MANY_OF_ONE_CLASS:
        yield (
            "look",
            f"Always predicting {classes[0]['label']!r} is right {figures['majority']:.1%} of the time: compare "
            "balanced accuracy, or balance the classes.",
        )


def _copies(figures: Figures) -> Iterator[tuple[Level, str]]:
    unit = figures["unit"]
    if figures.get("exact_duplicates"):
        yield (
            "look",
            f"{figures['exact_duplicates']:,} of {figures['rows']:,} {unit} repeat an earlier one exactly; "
            f"{figures['distinct_texts']:,} are distinct.",
        )
    near = figures.get("near_duplicates")
    if near and figures["kind"] in ("instruction", "preference") and near["repeats_exact"]:
        yield ("look", f"{near['repeats_exact']:,} {unit} have exactly the same question as an earlier one.")
    if near and near["repeats_not_exact"]:
        among = "" if near["compared"] == figures["rows"] else f" among the first {near['compared']:,}"
        yield (
            "look",
            f"{near['repeats_not_exact']:,} more{among} are near-duplicates, equal but for case, punctuation, numbers "
            "or a tenth of their letters: keep each group in one part of a split.",
        )
    if near and near["conflicts"]:
        yield "bad", f"{near['conflicts']:,} groups of near-duplicates have different labels."


def _leaks(figures: Figures) -> Iterator[tuple[Level, str]]:
    for pair in figures.get("overlaps") or []:
        n = max(pair["exact"], pair["near"] or 0)
        if n:
            near = (
                ""
                if pair["near"] is None
                else f", {pair['near']:,} of the {pair['compared']:,} compared at least nearly"
            )
            yield (
                "bad",
                f"Leak: of the {pair['rows']:,} rows in {pair['second']}, {pair['exact']:,} are exactly in "
                f"{pair['first']}{near}; a test on them measures memorization.",
            )


def _fit(figures: Figures) -> Iterator[tuple[Level, str]]:
    cut = figures.get("truncation")
    if not cut or not cut["longer"]:
        return
    n_longer = f"{cut['longer']:,} {figures['unit']} ({cut['share_longer']:.1%})"
    start = f"{n_longer} are longer than {cut['context_length']:,} "
    if figures["kind"] in ("text", "shards"):
        yield (
            "look",
            f"{start}{figures['length_unit']}: pre-training cuts them into windows and uses all of it.",
        )
    else:
        yield (
            "look",
            f"{start}{figures['length_unit']}: {cut['cut']:,} of them ({cut['share_cut']:.1%}) would be cut off.",
        )


def _loss(figures: Figures) -> Iterator[tuple[Level, str]]:
    loss = figures.get("loss")
    if loss and loss["left_out"]:
        yield (
            "bad",
            f"{loss['left_out']:,} of {figures['rows']:,} entries are left out of training: their prompt alone fills "
            "the context.",
        )


def _pairs(figures: Figures) -> Iterator[tuple[Level, str]]:
    pairs = figures.get("pairs")
    if not pairs:
        return
    if pairs["equal"]:
        yield "bad", f"{pairs['equal']:,} pairs have equal chosen and rejected answers."
    share = pairs["chosen_longer"] / figures["rows"]
    if share >= LONGER_IS_BETTER:
        yield (
            "look",
            f"The chosen answer is the longer one in {share:.0%} of pairs: a model may learn to write long answers.",
        )


def _characters(figures: Figures) -> Iterator[tuple[Level, str]]:
    for fault in figures.get("faults") or []:
        places, unit = "places" if fault["n"] != 1 else "place", figures["unit"]
        rows = unit if fault["rows"] != 1 else unit.removesuffix("s")
        meaning = fault["meaning"][0].upper() + fault["meaning"][1:]
        yield "look", f"{meaning}: {fault['n']:,} {places} in {fault['rows']:,} {rows}."
    special = figures.get("special_tokens") or []
    if special:
        named = ", ".join(f"{row['token']} {row['n']:,} times" for row in special[:5])
        yield (
            "look",
            f"Special-token strings in the text ({named}): training reads them as plain text, never as the token."
            + (SEPARATOR_HINT if figures["kind"] == "text" else ""),
        )
