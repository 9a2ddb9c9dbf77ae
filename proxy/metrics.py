"""The numbers that a sidecar counts, under the names that Istio's dashboards know and, beside them, our own.

Every label comes from a closed set or is capped: what peers do must not make the answer of /metrics grow for ever.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from collections.abc import Callable, Iterable
from typing import Final

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from mesh.spiffe import InvalidSpiffeId, SpiffeId
from proxy import reasons
from proxy.config import Direction, WorkloadConfig
from proxy.reasons import Flag
from proxy.tally import Level, Tally

# Identities of peers that get a label of their own in one process; those beyond are counted together as "other".
MAX_PRINCIPALS: Final = 256
# Seconds. A handshake of the mesh takes 4 ms on one machine; 10 s is its deadline.
_HANDSHAKE_BUCKETS: Final = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_UNKNOWN: Final = "unknown"  # Istio's word for a label that it cannot fill
_ISTIO_LABELS: Final = (
    "reporter",
    "source_workload",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_canonical_service",
    "source_canonical_revision",
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_service",
    "destination_service_name",
    "destination_service_namespace",
    "destination_canonical_service",
    "destination_canonical_revision",
    "request_protocol",
    "response_flags",
    "connection_security_policy",
)


class _BeforeReading(Collector):
    """Stands in front of the registry's metrics: whoever reads them finds them up to date."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        """Nothing of its own."""
        self._metrics.before_reading()
        return ()


class TcpCounters:
    """The four counters of one kind of connection: same direction, same two identities."""

    __slots__ = ("_closed", "_closed_by_flag", "_labels", "_tally", "opened", "received", "sent")

    def __init__(self, metrics: Metrics, labels: dict[str, str]) -> None:
        self._labels = labels
        self._closed = metrics.tcp_closed
        self._closed_by_flag: dict[Flag, Tally] = {}
        self._tally = metrics.tally
        self.opened = metrics.tally(metrics.tcp_opened.labels(**labels, response_flags="-"))
        self.sent = metrics.tally(metrics.tcp_sent.labels(**labels, response_flags="-"))
        self.received = metrics.tally(metrics.tcp_received.labels(**labels, response_flags="-"))

    def count_closed(self, flag: Flag) -> None:
        """One connection of this kind has ended."""
        counter = self._closed_by_flag.get(flag)
        if counter is None:
            # labels() with twenty of them costs more than all else that is done for a connection's end.
            counter = self._tally(self._closed.labels(**self._labels, response_flags=flag.value))
            self._closed_by_flag[flag] = counter
        counter.inc()


class Metrics:
    """Every metric of a process. In a worker of several, prometheus_client keeps the values in files of
    PROMETHEUS_MULTIPROC_DIR, which must be set before this module is imported."""

    def __init__(self, workload: WorkloadConfig | None = None) -> None:
        """`workload` is what we are called."""
        self._workload = workload or WorkloadConfig()
        # They would double every series for a value that nobody plots.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = self.registry = CollectorRegistry()
        self._tallies: list[Tally | Level] = []
        # What brings the numbers up to date before they are read; more than settle() where more is left to do.
        self.before_reading: Callable[[], None] = self.settle
        registry.register(_BeforeReading(self))
        self.tcp_opened = Counter(
            "istio_tcp_connections_opened", "TCP connections opened.", _ISTIO_LABELS, registry=registry
        )
        self.tcp_closed = Counter(
            "istio_tcp_connections_closed", "TCP connections closed.", _ISTIO_LABELS, registry=registry
        )
        self.tcp_sent = Counter(
            "istio_tcp_sent_bytes", "Bytes from server to client (responses).", _ISTIO_LABELS, registry=registry
        )
        self.tcp_received = Counter(
            "istio_tcp_received_bytes", "Bytes from client to server (requests).", _ISTIO_LABELS, registry=registry
        )
        self._handshakes = Counter(
            "qbitel_tls_handshakes",
            "TLS handshakes that ended, by their result: ok, or the reason of the failure.",
            ("profile", "group", "signature", "direction", "result"),
            registry=registry,
        )
        self._handshake_seconds = Histogram(
            "qbitel_tls_handshake_seconds",
            "Duration of completed TLS handshakes.",
            ("direction",),
            buckets=_HANDSHAKE_BUCKETS,
            registry=registry,
        )
        self._resumptions = Counter(
            "qbitel_tls_resumptions",
            "TLS handshakes that resumed an earlier session, without certificates or signatures.",
            ("direction",),
            registry=registry,
        )
        self._refused = Counter(
            "qbitel_connections_refused",
            "Connections that this sidecar or its peer refused, by reason.",
            ("direction", "reason"),
            registry=registry,
        )
        self._open = Gauge(
            "qbitel_connections_open",
            "Connections that are open now.",
            ("direction",),
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._tunnels = Gauge(
            "qbitel_tunnels_open",
            "TLS connections that carry many connections of applications, open now.",
            ("direction",),
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._streams = Gauge(
            "qbitel_tunnel_streams_open",
            "Connections of applications that are carried in tunnels now.",
            ("direction",),
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.handshake_queue = Level(
            Gauge(
                "qbitel_handshake_queue",
                "Steps of handshakes that wait for their turn between those of the data path.",
                registry=registry,
                multiprocess_mode="livesum",
            )
        )
        self._tallies.append(self.handshake_queue)
        self._plaintext = Counter(
            "qbitel_plaintext_connections",
            "Connections that passed without TLS of the mesh: PERMISSIVE or DISABLE inbound, passthrough outbound.",
            ("direction",),
            registry=registry,
        )
        self.cert_expiry = Gauge(
            "qbitel_cert_expiry_seconds",
            "Time until our certificate expires; negative once it has, 0 while there is none.",
            registry=registry,
            multiprocess_mode="min",
        )
        self.reloads = Counter(
            "qbitel_cert_reloads", "Reloads of the certificate files.", ("result",), registry=registry
        )
        self.older_lists = Counter(
            "qbitel_crl_older_refused",
            "Times that revocation lists were refused because a newer one of the same issuer is in use.",
            registry=registry,
        )
        self.log_lines_dropped = Counter(
            "qbitel_access_log_lines_dropped", "Access-log lines that nobody read in time.", registry=registry
        )
        self.messages_dropped = Counter(
            "qbitel_message_lines_dropped", "Lines on stderr that nobody read in time.", registry=registry
        )
        build = Gauge(
            "qbitel_build_info",
            "Always 1; the labels say what is running.",
            ("version", "python"),
            registry=registry,
            multiprocess_mode="max",
        )
        build.labels(importlib.metadata.version("qbitel-mesh"), platform.python_version()).set(1)
        self._streams_now = {direction: self.tally(self._streams.labels(direction.value)) for direction in Direction}
        self._open_now = {direction: self.tally(self._open.labels(direction.value)) for direction in Direction}
        self._tcp: dict[tuple[Direction, str, str, bool], TcpCounters] = {}
        # labels() costs more than all else that is counted of a handshake.
        self._handshakes_of: dict[tuple[Direction, str, str, str, str], Tally] = {}
        self._seconds_of: dict[Direction, Histogram] = {}
        self._resumptions_of: dict[Direction, Tally] = {}
        self._principals: set[str] = set()

    def tally(self, series: Counter | Gauge) -> Tally:
        """Add up the changes of `series`, one of this process, until `settle`."""
        made = Tally(series)
        self._tallies.append(made)
        return made

    def settle(self) -> None:
        """Bring every series up to date; to be called now and then where another process reads them."""
        for tally in self._tallies:
            tally.settle()

    def handshake(self, direction: Direction, profile: str, group: str, signature: str, result: str) -> None:
        """One handshake ended; `group` and `signature` are "-" where none was agreed on."""
        outcome = result if result == "ok" else reasons.slug(result)
        key = (direction, profile, group, signature, outcome)
        tally = self._handshakes_of.get(key)
        if tally is None:
            series = self._handshakes.labels(profile, group, signature, direction.value, outcome)
            tally = self._handshakes_of[key] = self.tally(series)
        tally.inc()

    def handshake_took(self, direction: Direction, seconds: float) -> None:
        """One handshake was completed in `seconds`."""
        series = self._seconds_of.get(direction)
        if series is None:
            series = self._seconds_of[direction] = self._handshake_seconds.labels(direction.value)
        series.observe(seconds)

    def resumed(self, direction: Direction) -> None:
        """One of the completed handshakes resumed a session."""
        tally = self._resumptions_of.get(direction)
        if tally is None:
            tally = self._resumptions_of[direction] = self.tally(self._resumptions.labels(direction.value))
        tally.inc()

    def refused(self, direction: Direction, reason: str) -> None:
        """One connection was refused."""
        self._refused.labels(direction.value, reasons.slug(reason)).inc()

    def connection_opened(self, direction: Direction) -> None:
        """One connection was accepted."""
        self._open_now[direction].inc()

    def connection_gone(self, direction: Direction) -> None:
        """One connection that was accepted is no more."""
        self._open_now[direction].inc(-1)

    def tunnel_opened(self, direction: Direction) -> None:
        """A tunnel stands."""
        self._tunnels.labels(direction.value).inc()

    def tunnel_gone(self, direction: Direction) -> None:
        """A tunnel is no more."""
        self._tunnels.labels(direction.value).dec()

    def stream_opened(self, direction: Direction) -> None:
        """A tunnel carries one more connection."""
        self._streams_now[direction].inc()

    def stream_gone(self, direction: Direction) -> None:
        """It does not any more: it is over, or goes on in a connection of its own."""
        self._streams_now[direction].inc(-1)

    def plaintext(self, direction: Direction) -> None:
        """One connection passes without the mesh's TLS."""
        self._plaintext.labels(direction.value).inc()

    def tcp(self, direction: Direction, local: str, peer: str, secure: bool) -> TcpCounters:
        """The counters of connections between these two SPIFFE ids ("-" where there is none)."""
        counters = self._tcp.get((direction, local, peer, secure))
        if counters is None:
            peer = self._capped(peer)
            key = (direction, local, peer, secure)
            counters = self._tcp.get(key)
            if counters is None:
                counters = self._tcp[key] = TcpCounters(self, self._istio_labels(direction, local, peer, secure))
        return counters

    def _istio_labels(self, direction: Direction, local: str, peer: str, secure: bool) -> dict[str, str]:
        """All labels but response_flags. What only an API server could know stays unknown, as Istio does it."""
        outbound = direction is Direction.OUTBOUND
        source, destination = (local, peer) if outbound else (peer, local)
        labels = dict.fromkeys(_ISTIO_LABELS, _UNKNOWN)
        del labels["response_flags"]
        labels.update(
            reporter="source" if outbound else "destination",
            source_principal=source if source != "-" else _UNKNOWN,
            source_workload_namespace=_namespace(source),
            destination_principal=destination if destination != "-" else _UNKNOWN,
            destination_workload_namespace=_namespace(destination),
            destination_service_namespace=_namespace(destination),
            request_protocol="tcp",
            connection_security_policy="mutual_tls" if secure else "none",
        )
        labels.update(_own_labels(self._workload, "source" if outbound else "destination"))
        if not outbound and self._workload.canonical_service:
            labels["destination_service_name"] = self._workload.canonical_service
        return labels

    def _capped(self, principal: str) -> str:
        if principal in self._principals:
            return principal
        if len(self._principals) >= MAX_PRINCIPALS:
            return "other"
        self._principals.add(principal)
        return principal


class EnrolmentMetrics:
    """What is counted of a sidecar that gets its certificates from an authority; in `metrics`' registry."""

    def __init__(self, metrics: Metrics) -> None:
        self._rotations = Counter(
            "qbitel_cert_rotations",
            "Requests for a certificate, by their result: ok, unreachable, refused, or invalid (an answer of no use).",
            ("result",),
            registry=metrics.registry,
        )
        self._success = Gauge(
            "qbitel_cert_last_success_timestamp_seconds",
            "When the authority last gave us a certificate, in Unix time; of several workers, the longest ago.",
            registry=metrics.registry,
            multiprocess_mode="min",
        )
        self._reachable = Gauge(
            "qbitel_authority_reachable",
            "Whether the authority answered when it was last asked: 1 or 0.",
            registry=metrics.registry,
            multiprocess_mode="min",
        )

    def rotation(self, result: str) -> None:
        """One request for a certificate ended."""
        self._rotations.labels(result).inc()

    def succeeded_at(self, now: datetime.datetime) -> None:
        """A certificate came and is in use."""
        self._success.set(now.timestamp())

    def reachable(self, yes: bool) -> None:
        """The authority answered, or did not."""
        self._reachable.set(yes)


# What /metrics shows.
Exposition = CollectorRegistry


def exposition_registry(own: Metrics | None) -> Exposition:
    """What /metrics shows: `own` values of a single process with its memory and CPU, or (None) those of all workers."""
    if own is not None:
        ProcessCollector(registry=own.registry)
        return own.registry
    registry = CollectorRegistry()
    # It registers itself. The folder is the one that the workers write to.
    MultiProcessCollector(registry, os.environ["PROMETHEUS_MULTIPROC_DIR"])  # type: ignore[no-untyped-call]
    return registry


def _own_labels(workload: WorkloadConfig, side: str) -> dict[str, str]:
    """What we know of ourselves, under the names of the `side` that we are."""
    known = {
        "workload": workload.name,
        "app": workload.app,
        "version": workload.version,
        "canonical_service": workload.canonical_service,
        "canonical_revision": workload.canonical_revision,
    }
    return {f"{side}_{name}": value for name, value in known.items() if value}


def _namespace(principal: str) -> str:
    try:
        return SpiffeId.parse(principal).namespace or _UNKNOWN
    except InvalidSpiffeId:
        return _UNKNOWN
