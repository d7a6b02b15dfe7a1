"""Counters of the server, in Prometheus's text format."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping

from scratchlm.core.device import memory_bytes

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """What has happened since the start; the event loop counts."""

    def __init__(self) -> None:
        self.started_s = time.monotonic()
        self.requests: Counter[tuple[str, int]] = Counter()  # (route, status)
        self.prompt_tokens: Counter[str] = Counter()  # by model
        self.generated_tokens: Counter[str] = Counter()  # by model
        self.n_rejected = 0  # requests that found the queue full
        self._durations: Counter[float] = Counter()  # by bucket's upper bound
        self._duration_sum_s = 0.0

    def record(self, route: str, status: int, seconds: float) -> None:
        """Count a finished request."""
        self.requests[route, status] += 1
        self._duration_sum_s += seconds
        self._durations[next((bound for bound in BUCKETS_S if seconds <= bound), float("inf"))] += 1

    def text(
        self, *, gauges: Mapping[str, tuple[str, float]], by_model: Mapping[str, Mapping[str, float]]
    ) -> str:
        """All metrics; `gauges` has name -> (help, value), `by_model` name -> model -> value."""
        lines = _family("scratchlm_requests_total", "counter", "finished requests", (
            (f'route="{_escaped(route)}",status="{status}"', n) for (route, status), n in sorted(self.requests.items())
        ))  # fmt: skip
        lines += self._histogram()
        what = "requests that found the queue full"
        lines += _family("scratchlm_rejected_total", "counter", what, [("", self.n_rejected)])
        for name, what, counts in (
            ("scratchlm_prompt_tokens_total", "tokens of prompts", self.prompt_tokens),
            ("scratchlm_generated_tokens_total", "tokens generated", self.generated_tokens),
        ):
            lines += _family(
                name, "counter", what, ((f'model="{_escaped(m)}"', n) for m, n in sorted(counts.items()))
            )
        for name, values in by_model.items():
            samples = ((f'model="{_escaped(model)}"', value) for model, value in values.items())
            lines += _family(f"scratchlm_{name}", "gauge", name.replace("_", " "), samples)
        own = {
            "uptime_seconds": ("time since the start", time.monotonic() - self.started_s),
            "memory_bytes": ("resident memory of the process", float(memory_bytes())),
        }
        for name, (what, value) in {**own, **gauges}.items():
            lines += _family(f"scratchlm_{name}", "gauge", what, [("", value)])
        return "\n".join(lines) + "\n"

    def _histogram(self) -> list[str]:
        samples, total = [], 0
        for bound in (*BUCKETS_S, float("inf")):
            total += self._durations[bound]
            samples.append((f'le="{"+Inf" if bound == float("inf") else f"{bound:g}"}"', total))
        name = "scratchlm_request_seconds"
        lines = _family(f"{name}_bucket", "", "", samples)
        return [
            f"# HELP {name} time from a request's headers to the end of its answer",
            f"# TYPE {name} histogram",
            *lines,
            f"{name}_sum {self._duration_sum_s:g}",
            f"{name}_count {total}",
        ]


def _family(name: str, kind: str, what: str, samples: Iterable[tuple[str, float]]) -> list[str]:
    head = [f"# HELP {name} {what}", f"# TYPE {name} {kind}"] if kind else []
    return [*head, *(f"{name}{f'{{{labels}}}' if labels else ''} {value!r}" for labels, value in samples)]


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
