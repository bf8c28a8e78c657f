"""What the server tells Prometheus: requests and how long they took, tokens, rows, and what waits."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dig_jax.rollout.batcher import Batcher
from dig_jax.serve.body import Held

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
LEFT = "499"  # the status under which requests are counted whose client left


class Metrics(Collector):
    """The metrics of one server.

    Attributes:
      requests: that were answered or refused, by path and status.
      seconds: from a request to the end of its answer.
      first_token_seconds: from a request to the first token of it.
    """

    def __init__(self, batcher: Batcher, held: Held):
        self._batcher = batcher
        self._held = held
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "dig_jax_requests", "Requests, by path and status", ["path", "status"], registry=self._registry
        )
        self.seconds = Histogram(
            "dig_jax_request_seconds", "Completions, whole", buckets=_SECONDS, registry=self._registry
        )
        self.first_token_seconds = Histogram(
            "dig_jax_first_token_seconds",
            "Completions, to the first token",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """What the batcher is doing now."""
        stats = self._batcher.stats()
        yield GaugeMetricFamily("dig_jax_waiting_requests", "Requests without a row", stats.waiting)
        yield GaugeMetricFamily("dig_jax_running_answers", "Answers that are being decoded", stats.running)
        yield GaugeMetricFamily("dig_jax_rows", "Answers that can be decoded at a time", stats.rows)
        yield GaugeMetricFamily("dig_jax_held_bytes", "Bytes of bodies and pictures", self._held.bytes)
        tokens = CounterMetricFamily("dig_jax_tokens", "Tokens read and drawn", labels=["kind"])
        tokens.add_metric(["prompt"], stats.prompt_tokens)
        tokens.add_metric(["answer"], stats.answer_tokens)
        yield tokens
        yield CounterMetricFamily("dig_jax_decode_calls", "Calls of the program that decodes", stats.steps)
        yield CounterMetricFamily("dig_jax_decoded_rows", "Rows in those calls", stats.row_steps)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self._registry)
