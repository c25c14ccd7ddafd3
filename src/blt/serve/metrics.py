"""What Prometheus is told."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)


class Metrics:
    """The counters of one server; none is shared with other servers in the process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)  # memory, file descriptors, processor time

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"blt_{name}", text, labels, registry=self.registry)

        self.requests = counter("requests", "Answers by path and status", "path", "status")
        self.prompt_bytes = counter("prompt_bytes", "Bytes of prompts of completions")
        self.completion_bytes = counter("completion_bytes", "Bytes written")
        self.completion_patches = counter("completion_patches", "Patches written")
        self.left = counter("clients_left", "Requests whose client left before the answer")
        text = "Connections ended by a limit: header, unread or places"
        self.dropped = counter("connections_dropped", text, "limit")
        self.seconds = Histogram(
            "blt_request_seconds",
            "Time of a request",
            ["path"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.first_byte = Histogram(
            "blt_first_byte_seconds",
            "Time to the first byte of a stream",
            buckets=SECONDS,
            registry=self.registry,
        )

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """A value that is read when Prometheus asks."""
        Gauge(f"blt_{name}", text, registry=self.registry).set_function(read)

    def text(self) -> bytes:
        return generate_latest(self.registry)
