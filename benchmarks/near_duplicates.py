"""Measure time and memory of the near-duplicate search on rows that differ only in a few words.

Such rows are the hard case, because all share most of their letters. Three kinds are measured: differences so small
that all rows are near-duplicates of each other, differences near the threshold, and differences so large that few rows
are.

    python benchmarks/near_duplicates.py --rows 100000
"""

from __future__ import annotations

import argparse
import random
import resource
import time

from scratchlm.data.near_duplicates import group_near_duplicates

TEMPLATES = {
    "one short gap": "dear customer your parcel number {} waits at the station please bring your card and sign for it "
    "before {} or it will go back to the sender who may ask you to pay for it",
    "three gaps": "dear {} your parcel from {} waits at the station please bring your card and sign for it before {}",
    "five gaps": "{} has sent {} a message about {} in {} open the page to read it or write to {}",
}


def template_rows(template: str, n: int, *, n_words: int = 2000, seed: int = 1) -> list[str]:
    """Rows of one template, its gaps filled with random words of 3 to 9 letters."""
    random_ = random.Random(seed)
    words = [
        "".join(random_.choices("abcdefghijklmnopqrstuvwxyz", k=random_.randint(3, 9)))
        for _ in range(n_words)
    ]
    return [template.format(*random_.choices(words, k=5)) for _ in range(n)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--words", type=int, default=2000, help="different words that fill the gaps")
    arguments = parser.parse_args()
    for name, template in TEMPLATES.items():
        rows = template_rows(template, arguments.rows, n_words=arguments.words)
        started_at_s, started_cpu_s = time.perf_counter(), time.process_time()
        n_groups = len(set(group_near_duplicates(rows)))
        elapsed_s, cpu_s = time.perf_counter() - started_at_s, time.process_time() - started_cpu_s
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{name}: {arguments.rows:,} rows in {n_groups:,} groups, {elapsed_s:.1f} s ({cpu_s:.1f} s of CPU), "
            f"peak {peak_mib:,.0f} MiB",
            flush=True,
        )


if __name__ == "__main__":
    main()
