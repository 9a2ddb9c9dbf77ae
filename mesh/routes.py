"""VirtualService: where a client's sidecar sends what is dialled, with which timeouts, retries and faults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mesh.metadata import Metadata

# The gateway that stands for the sidecars themselves.
MESH_GATEWAY = "mesh"


@dataclass(frozen=True, slots=True)
class StringMatch:
    """How a text is matched: `kind` is exact, prefix or regex (RE2, whole), or present where nothing more is asked."""

    kind: str
    value: str = ""


@dataclass(frozen=True, slots=True)
class RouteMatch:
    """Everything that is given must hold. HTTP's are empty for TCP and TLS."""

    uri: StringMatch | None = None
    scheme: StringMatch | None = None
    method: StringMatch | None = None
    authority: StringMatch | None = None
    headers: Mapping[str, StringMatch] = field(default_factory=dict)
    without_headers: Mapping[str, StringMatch] = field(default_factory=dict)
    query_params: Mapping[str, StringMatch] = field(default_factory=dict)
    ignore_uri_case: bool = False
    sni_hosts: tuple[str, ...] = ()
    destination_subnets: tuple[str, ...] = ()
    port: int | None = None
    source_labels: Mapping[str, str] = field(default_factory=dict)
    source_namespace: str = ""
    gateways: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Destination:
    """A host, maybe a subset of it, and its share of what is sent; a port is of its Service."""

    host: str
    subset: str = ""
    port: int | None = None
    weight: int | None = None  # None: all of it, where there is one destination


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a request is tried again. Times in seconds."""

    attempts: int
    per_try_timeout: float | None = None
    retry_on: tuple[str, ...] = ()  # Envoy's words; none: Istio's default list
    backoff: float | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """Faults that are made on purpose, for a percentage of requests."""

    delay: float | None = None  # seconds
    delay_percent: float = 0.0
    abort_status: int | None = None  # of HTTP
    abort_grpc_status: str = ""
    abort_percent: float = 0.0


@dataclass(frozen=True, slots=True)
class Route:
    """One route; the first whose match holds is taken."""

    protocol: str  # http, tcp or tls
    name: str = ""
    matches: tuple[RouteMatch, ...] = ()  # one of them must hold; none: always
    destinations: tuple[Destination, ...] = ()
    timeout: float | None = None  # seconds; None: no limit
    retries: Retries | None = None  # None: Istio's default, two more attempts
    fault: Fault | None = None
    beyond: tuple[str, ...] = ()  # fields that no sidecar of ours follows: rewrite, mirror, redirect …


@dataclass(frozen=True, slots=True)
class VirtualService:
    """One resource."""

    metadata: Metadata
    hosts: tuple[str, ...]
    routes: tuple[Route, ...]
    gateways: tuple[str, ...] = (MESH_GATEWAY,)
    export_to: tuple[str, ...] = ()
