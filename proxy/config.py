"""What a sidecar or a tunnel is told to do: frozen values, checked once, before anything is bound."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Final

from mesh import names
from mesh.errors import UserError
from mesh.modes import MTLSMode
from mesh.spiffe import InvalidSpiffeId, SpiffeId, check_trust_domain
from pqtls import PROFILES, Profile
from proxy.policy.config import PolicyConfig
from proxy.probes.questions import Question
from proxy.routes import Network

# A host's name has up to 64 characters, a pod's UID 36; the worker's number comes behind it.
_MAX_INSTANCE: Final = 100
_INSTANCE = re.compile(rf"[A-Za-z0-9._-]{{1,{_MAX_INSTANCE}}}\Z")


# How a line of the access log is written; "off": not at all.
ACCESS_LOG_FORMATS: Final = ("json", "text", "off")


class InterceptionMode(Enum):
    """How interception brings inbound connections (`qbitel init --inbound-mode`), in Istio's words."""

    REDIRECT = "REDIRECT"  # to an address of ours; the application sees 127.0.0.6 or ::6
    TPROXY = "TPROXY"  # as they are; the application sees its client


class Direction(Enum):
    """Which way a connection crosses the sidecar, seen from its application."""

    INBOUND = "inbound"  # from the wire to the application
    OUTBOUND = "outbound"  # from the application to the wire

    # Enum's own is a function in Python; each connection looks its direction up in some dictionaries. There is one of
    # each, so that identity is equality.
    __hash__ = object.__hash__


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host (a name, or an address without brackets) and a TCP port (0 to 65535; 0 binds any free one)."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class TrustFiles:
    """Where the roots of trust lie, and what goes with them: PEM, all of it.

    `crl` holds revocation lists of these authorities. Where `crl_is_optional`, its absence means that nothing is
    revoked. `intermediates` may always be absent: peers then send theirs with each handshake.
    """

    roots: Path
    crl: Path | None = None
    crl_is_optional: bool = False
    intermediates: Path | None = None

    @classmethod
    def in_folder(cls, folder: Path) -> TrustFiles:
        """The files under the names that every part of the mesh uses."""
        return cls(
            folder / names.ROOTS_FILE,
            crl=folder / names.REVOCATION_FILE,
            crl_is_optional=True,
            intermediates=folder / names.INTERMEDIATES_FILE,
        )

    def paths(self) -> tuple[Path, ...]:
        """Every file that is looked at."""
        return tuple(path for path in (self.roots, self.crl, self.intermediates) if path is not None)


# (the ML-KEM private key in PEM, the envelope, the SPIFFE id that it was sealed to, its label) → what was sealed.
# Raises UserError.
OpenSealed = Callable[[bytes, bytes, str, str], bytes]


@dataclass(frozen=True, slots=True)
class CredentialFiles:
    """Where our certificate chain, its private key and what we trust lie: PEM.

    The key may be sealed to the workload instead: then `open_sealed` opens it with the ML-KEM key in `kem_key`.
    """

    chain: Path
    key: Path
    trust: TrustFiles
    kem_key: Path | None = None
    open_sealed: OpenSealed | None = None

    @classmethod
    def in_folder(
        cls, folder: Path, *, kem_key: Path | None = None, open_sealed: OpenSealed | None = None
    ) -> CredentialFiles:
        """The files under the names that every part of the mesh uses."""
        return cls(
            folder / names.CERTIFICATE_FILE,
            folder / names.PRIVATE_KEY_FILE,
            TrustFiles.in_folder(folder),
            kem_key=kem_key or folder / names.KEM_PRIVATE_KEY_FILE,
            open_sealed=open_sealed,
        )

    def paths(self) -> tuple[Path, ...]:
        """Every file that is looked at."""
        return (self.chain, self.key, *self.trust.paths(), *((self.kem_key,) if self.kem_key else ()))


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentConfig:
    """Where our certificates come from when there are none in files: an authority.

    `roots` vouch for the authority itself; whom we trust otherwise, it says. `token` is the file of a service account's
    token, which the kubelet replaces from time to time; `bootstrap_token` that of one that is good for one use.
    `instance` tells us apart from others of the same identity; each worker adds its number.
    """

    authority: Endpoint
    roots: TrustFiles
    token: Path | None = None
    bootstrap_token: Path | None = None
    instance: str

    def __post_init__(self) -> None:
        if (self.token is None) == (self.bootstrap_token is None):
            raise UserError("to enrol, give either --token or --bootstrap-token")
        if self.authority.port == 0:
            raise UserError(f"the authority {self.authority} has port 0; give the port that it listens on")
        if not _INSTANCE.match(self.instance):
            raise UserError(
                f"--instance {self.instance[:80]!r} is no name for an instance: 1 to {_MAX_INSTANCE} letters, digits, "
                "'.', '-' and '_'"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Every bound of a sidecar, each with its reason. Times are seconds."""

    # Each connection costs two descriptors and at worst two buffers of 256 KiB.
    max_connections: int = 10_000
    # Inbound, not yet finished: some 100 KB each. Beyond it the oldest is reset. A flood of 5,000 a second, more than
    # we could serve, still leaves each 100 ms, and a peer of the mesh needs two round trips.
    max_handshakes: int = 512
    # A handshake is two round trips and some milliseconds of CPU; ten seconds leave room for three lost segments.
    handshake_timeout: float = 10.0
    # One SYN lost and two more tries (after 1 s and 3 s, RFC 6298 §2.1 and §5.5).
    connect_timeout: float = 5.0
    # The first bytes of a mesh client come at once; one lost segment or two are forgiven.
    first_bytes_timeout: float = 5.0
    # PERMISSIVE only: a client that is silent for so long is taken for plaintext in which the server speaks first. A
    # ClientHello whose only segment is lost comes again after 1 s (RFC 6298 §2.1), which this outlasts.
    peek_timeout: float = 1.5
    # The same at ports where servers speak first (policy.server_first). Outlasts one lost segment on the networks of a
    # cluster: Linux sends it again after 200 ms (TCP_RTO_MIN).
    server_first_timeout: float = 0.3
    # Without a byte either way for so long, both ends are taken for gone; the same hour as Envoy's tcp_proxy.
    idle_timeout: float = 3600.0
    # A tunnel without streams for so long is closed: a handshake costs what 100 KB of memory cost for hours.
    tunnel_idle_timeout: float = 300.0
    # Nothing heard for so long while streams are open: the other side is asked, and after as long again given up.
    tunnel_silence: float = 15.0
    # A tunnel to a Service's address leads to one of its pods; new pods get their share when tunnels are replaced.
    tunnel_max_age: float = 600.0
    # Bytes wait for one end, and nothing has moved either way for so long: its program hangs, or its machine is gone
    # and answers no packet (TCP_USER_TIMEOUT). Each such connection holds 256 KiB here. A consumer that pauses for ten
    # minutes is no longer one that will go on.
    stall_timeout: float = 600.0
    # SIGTERM to end: five seconds less than Kubernetes' default terminationGracePeriodSeconds of 30.
    drain_seconds: float = 25.0
    # After SIGTERM new connections are still served. It ends early when none is left and none has come for so long: the
    # time in which kube-proxy and clients' resolvers hear that this pod leaves is a second or two.
    drain_quiet: float = 3.0
    # accept() without descriptors or memory fails at once and would spin; others may free theirs meanwhile.
    accept_pause: float = 0.1

    def __post_init__(self) -> None:
        for name in ("max_connections", "max_handshakes"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} must be at least 1")
        for name in (
            "handshake_timeout", "connect_timeout", "first_bytes_timeout", "peek_timeout", "idle_timeout",
            "server_first_timeout",
            "tunnel_idle_timeout", "tunnel_silence", "tunnel_max_age", "stall_timeout",
        ):  # fmt: skip
            if not 0 < getattr(self, name) < float("inf"):
                raise UserError(f"--{name.replace('_', '-')} must be more than 0 seconds")
        for name in ("drain_seconds", "drain_quiet"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UserError(f"--{name.replace('_', '-')} must be 0 or more seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadConfig:
    """What we are called in metrics; "" where nobody said so, which they show as "unknown"."""

    name: str = ""
    app: str = ""
    version: str = ""
    canonical_service: str = ""
    canonical_revision: str = ""

    @classmethod
    def of_labels(cls, name: str, labels: Mapping[str, str]) -> WorkloadConfig:
        """What a pod with these `labels` is called, as Istio derives it."""

        def first(*keys: str) -> str:
            return next((labels[key] for key in keys if labels.get(key)), "")

        canonical = first("service.istio.io/canonical-name", "app.kubernetes.io/name", "app") or name
        revision = first("service.istio.io/canonical-revision", "app.kubernetes.io/version", "version")
        return cls(
            name=name,
            app=first("app", "app.kubernetes.io/name"),
            version=first("version", "app.kubernetes.io/version"),
            canonical_service=canonical,
            canonical_revision=revision or ("latest" if canonical else ""),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerConfig:
    """One listening address and what becomes of its connections.

    Without a `target` a connection goes where interception found it going. Where `mesh_only` is False the peer may be
    any TLS 1.3 implementation that our profile and roots accept; where it is True it must be a sidecar of ours, and
    says so by its ALPN protocol. `by_stream`: it takes tunnels of the mesh alone, and each stream says to which port of
    the address that was dialled it goes. `transparent`: interception is by TPROXY, so that the application is dialled
    from its client's address.
    """

    direction: Direction
    bind: Endpoint
    target: Endpoint | None = None
    mesh_only: bool = True
    by_stream: bool = False
    transparent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyConfig:
    """A whole sidecar or tunnel. Its certificate comes from `files`, or by `enrolment`.

    `profiles` are the acceptable ones in order of preference. `trust_domains` empty means any that the roots vouch for;
    `peers` empty means any identity of those domains. `provider` is one of proxy.providers.PROVIDER_NAMES. `key_log`
    is a file for the secrets of every connection, for development only. With `tunnels`, connections to other sidecars
    are carried many in one TLS connection where the other sidecar can. `mesh` and `peers_file` (a peers document, see
    docs/peers.md) say which destinations are in the mesh. `admin` must be loopback addresses. With
    `self_test`, it is ready only when a connection that interception redirects has arrived. `access_log` is one of
    ACCESS_LOG_FORMATS. `app_probes` are the application's, by their path on the health port.
    """

    files: CredentialFiles | None = None
    enrolment: EnrolmentConfig | None = None
    listeners: tuple[ListenerConfig, ...]
    profiles: tuple[Profile, ...]
    trust_domains: frozenset[str] = frozenset()
    peers: frozenset[str] = frozenset()
    server_name: str | None = None
    mode: MTLSMode = MTLSMode.STRICT
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    mesh: tuple[Network, ...] = ()
    peers_file: Path | None = None
    metrics: tuple[Endpoint, ...] = ()
    health: tuple[Endpoint, ...] = ()
    app_probes: Mapping[str, Question] = field(default_factory=dict)
    admin: tuple[Endpoint, ...] = ()
    self_test: bool = False
    access_log: str = "json"
    workload: WorkloadConfig = field(default_factory=WorkloadConfig)
    limits: Limits = field(default_factory=Limits)
    tunnels: bool = True
    workers: int = 1
    busy_poll: float | None = None  # seconds; None: what suits the processors that there are (busy_polling.py)
    provider: str = "cryptography"
    key_log: Path | None = None

    def __post_init__(self) -> None:
        if (self.files is None) == (self.enrolment is None):
            raise UserError("a certificate comes from files or from an authority: give either --certs or --authority")
        if self.enrolment is not None and not self.trust_domains:
            raise UserError("to enrol, give the --trust-domain of the authority")
        if not self.listeners:
            raise UserError(
                "there is nothing to listen on: give --explicit-outbound, --explicit-inbound or let it capture"
            )
        if self.workers < 1:
            raise UserError("--workers must be at least 1")
        for endpoint in self.admin:
            if not _is_loopback(endpoint.host):
                raise UserError(f"--admin {endpoint}: whoever dials it commands the sidecar; give a loopback address")
        seen: set[Endpoint] = set()
        for endpoint in self.endpoints():
            if endpoint.port and endpoint in seen:
                raise UserError(f"{endpoint} is given twice; each listener needs an address and port of its own")
            seen.add(endpoint)
        for listener in self.listeners:
            if listener.target is not None and listener.target.port == 0:
                raise UserError(f"the target {listener.target} has port 0; give the port to connect to")

    @property
    def profile_names(self) -> str:
        """The profiles as a person writes them: `qbitel,hybrid-l5`."""
        return ",".join(profile.name for profile in self.profiles)

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Every address that is to be bound."""
        return (*(listener.bind for listener in self.listeners), *self.metrics, *self.health, *self.admin)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, which may come to mean anything
        return False


def profiles_named(texts: Iterable[str]) -> tuple[Profile, ...]:
    """The profiles that `texts` name, each a name or several with commas, in order of preference; or UserError."""
    wanted = [name for text in texts for name in text.split(",")]
    for name in wanted:
        if name not in PROFILES:
            raise UserError(f"{name!r} is no profile; there are: {', '.join(PROFILES)}")
        if wanted.count(name) > 1:
            raise UserError(f"the profile {name} is named twice; name each once, the preferred one first")
    return tuple(PROFILES[name] for name in wanted)


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Parse CIDRs such as `10.0.0.0/8` or `fd00::/8`, or raise UserError."""
    parsed = []
    for text in texts:
        try:
            parsed.append(ipaddress.ip_network(text, strict=True))
        except ValueError as error:
            raise UserError(f"--mesh {text}: {error}; give a network such as 10.0.0.0/8") from None
    return tuple(parsed)


def trust_domains(texts: Iterable[str]) -> frozenset[str]:
    """Check trust domain names, or raise UserError."""
    try:
        return frozenset(check_trust_domain(text) for text in texts)
    except InvalidSpiffeId as error:
        raise UserError(f"--trust-domain: {error}") from None


def identities(flag: str, texts: Iterable[str]) -> frozenset[str]:
    """Check SPIFFE IDs given by `flag`, or raise UserError."""
    try:
        return frozenset(str(SpiffeId.parse(text)) for text in texts)
    except InvalidSpiffeId as error:
        raise UserError(f"{flag}: {error}") from None


def everywhere(port: int, ipv6: bool) -> tuple[Endpoint, ...]:
    """`port` on every address of this machine: IPv4, and IPv6 where there is any."""
    v4 = Endpoint("0.0.0.0", port)  # noqa: S104  # a sidecar's capture, metrics and health ports serve the whole pod
    return (v4, Endpoint("::", port)) if ipv6 else (v4,)
