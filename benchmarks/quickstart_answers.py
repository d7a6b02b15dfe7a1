"""Seconds that the quickstart's assistant takes for its 587 test entries, beside another commit of this package.

    git worktree add --detach ../before ba87dc5
    python -m benchmarks.quickstart_answers --model runs/quickstart/instruct --before ../before

Each program is a process of its own that loads the model once; rounds are measured in turns.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.generation_peers import Worker

ANSWERS = """
import json, sys, tempfile, time
from pathlib import Path
import torch
from scratchlm.checkpoints.store import load_model
from scratchlm.data.prompt_templates import template
from scratchlm.data.samples.instructions import sample_instructions
from scratchlm.finetuning.answers import answer_into_file

job = json.loads(sys.stdin.readline())
torch.set_num_threads(job["n_threads"])
found, entries = load_model(job["model"]), sample_instructions().test
print("=0", flush=True)
for line in sys.stdin:
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        answers = answer_into_file(entries, found.model, found.tokenizer, template("plain"), Path(folder, "answers"),
                                   step=1, max_new_tokens=24)
        elapsed_s = time.perf_counter() - begun
    print("=" + json.dumps([elapsed_s, [answer.text for answer in answers]]), flush=True)
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="the quickstart's assistant")
    parser.add_argument("--before", type=Path, required=True, help="a checkout of another commit")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    job = {"model": str(options.model.resolve()), "n_threads": options.threads}
    now = Path(__file__).parents[1]
    workers = [Worker(ANSWERS, job, checkout=path) for path in (now, options.before)]
    rounds = [[worker.ask([]) for worker in workers] for _ in range(options.rounds)]
    seconds = [min(found[i][0] for found in rounds) for i in range(2)]
    answers, before = (found[1] for found in rounds[0])
    n_equal = sum(one == other for one, other in zip(answers, before))
    print(
        f"{len(answers)} answers: {seconds[0]:.2f} s, before {seconds[1]:.2f} s, {seconds[0] / seconds[1]:.2f} of it"
    )
    print(f"{n_equal} answers are the same")
    for worker in workers:
        worker.close()


if __name__ == "__main__":
    main()
