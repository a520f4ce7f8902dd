"""An endpoint from which Prometheus reads the state of a run (text format, https://prometheus.io/docs/instrumenting)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from logging import WARNING
from typing import Any

from subfl_flower.flower.log import log
from subfl_flower.installed import optional_module
from subfl_flower.runs.status import RunStatus

METRICS = "SUBFL_METRICS"
"""The environment variable with the address that metrics are served on, HOST:PORT."""


class Endpoint:
    """Answers to Prometheus, where the environment variable `METRICS` names an address.

    Args:
        status: the state of the run, which others keep up to date.
        run_id: label of all figures.
    """

    def __init__(self, status: RunStatus, run_id: str) -> None:
        self._status, self._run_id = status, run_id
        self._server: Any = None

    def open(self) -> None:
        """Begin to answer, in a thread; the run goes on without it where the address is taken, as by another run.

        Raises:
            SubflError: the extra `metrics` is not installed.
        """
        address = os.environ.get(METRICS)
        if not address:
            return
        host, _, port = address.rpartition(":")
        library = optional_module("prometheus_client", "metrics", f"{METRICS}={address}")
        registry = library.CollectorRegistry()
        registry.register(RunCollector(self._status, self._run_id))
        library.ProcessCollector(namespace="subfl", registry=registry)
        try:
            self._server, _ = library.start_http_server(int(port), host.strip("[]"), registry)
        except OSError as error:
            log(WARNING, "no metrics are served on %s: %s", address, error.strerror or error)

    def close(self) -> None:
        """Answer no more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


class RunCollector:
    """Figures of a run, made from its state whenever Prometheus asks.

    Args:
        status: its state.
        run_id: label of all figures.
    """

    def __init__(self, status: RunStatus, run_id: str) -> None:
        self._status, self._run_id = status, run_id
        self._core = optional_module("prometheus_client.core", "metrics", METRICS)

    def collect(self) -> Iterator[Any]:
        """The families of figures, as prometheus_client wants them."""
        status = self._status
        info = self._core.InfoMetricFamily("subfl_run", "The run.", labels=["run"])
        info.add_metric([self._run_id], {"method": status.method, "dataset": status.dataset})
        yield info
        yield self._gauge("rounds_planned", "Rounds that were asked for.", status.rounds)
        yield self._counter("rounds", "Finished rounds.", [((), status.round)])
        by_part = [((part,), seconds) for part, seconds in sorted(status.seconds.items())]
        yield self._counter("seconds", "Seconds of finished rounds by part.", by_part, "part")
        last = [((part,), seconds) for part, seconds in sorted(status.last_seconds.items())]
        yield self._gauges("last_round_seconds", "Seconds of the last round by part.", last, "part")
        traffic = [((way,), size) for way, size in sorted(status.traffic.items())]
        yield self._counter("bytes", "Bytes of payload by direction.", traffic, "direction")
        failures = [((str(client),), count) for client, count in sorted(status.failures.items())]
        yield self._counter("client_failures", "Rounds that a client failed in.", failures, "client")
        for name, meaning, counts in (
            ("client_clipped", "Rounds in which a client's update was scaled back.", status.clipped),
            ("client_excluded", "Rounds in which a client's update was left out of the average.", status.excluded),
        ):
            yield self._counter(
                name, meaning, [((str(each),), count) for each, count in sorted(counts.items())], "client"
            )
        yield self._gauge("refused_nodes", "Nodes that were refused.", len(status.refused))
        nodes = [((str(each.node), ",".join(map(str, each.clients))), each) for each in status.nodes]
        connected = [(labels, float(each.connected)) for labels, each in nodes]
        yield self._gauges("node_connected", "1 for a connected node.", connected, "node", "clients")
        heard = [(labels, each.heard) for labels, each in nodes if each.heard is not None]
        yield self._gauges("node_heard_timestamp_seconds", "Time of a node's last reply.", heard, "node", "clients")
        if status.validation is not None:
            yield self._gauge("validation", "Validation metric of the last round.", status.validation)
        if status.epsilon is not None:
            yield self._gauge("epsilon", "Epsilon that uploads have spent.", status.epsilon)

    def _gauge(self, name: str, meaning: str, value: float) -> Any:
        return self._gauges(name, meaning, [((), value)])

    def _gauges(self, name: str, meaning: str, samples: Sequence[tuple[tuple[str, ...], Any]], *labels: str) -> Any:
        return self._family("Gauge", name, meaning, list(labels), samples)

    def _counter(self, name: str, meaning: str, samples: Sequence[tuple[tuple[str, ...], Any]], *labels: str) -> Any:
        return self._family("Counter", name, meaning, list(labels), samples)

    def _family(
        self, kind: str, name: str, meaning: str, labels: list[str], samples: Sequence[tuple[tuple[str, ...], Any]]
    ) -> Any:
        family = getattr(self._core, f"{kind}MetricFamily")(f"subfl_{name}", meaning, labels=["run", *labels])
        for values, value in samples:
            family.add_metric([self._run_id, *values], value)
        return family
