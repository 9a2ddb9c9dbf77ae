"""What an installation gives its pods: images, resources, the authority. Frozen values, checked once."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from injector.quantity import quantity
from mesh import names
from mesh.errors import UserError
from mesh.modes import MTLSMode
from mesh.spiffe import InvalidSpiffeId, check_trust_domain
from pqtls import PROFILES

DEFAULT_IMAGE: Final = "qbitel/quantum-sidecar:latest"
# The first Kubernetes that starts native sidecars without a feature gate (KEP-753, beta in 1.29).
NATIVE_SINCE: Final = (1, 29)
# Where nothing may wait for us, or where whoever breaks the webhook would break the cluster.
IGNORED_NAMESPACES: Final = frozenset(
    {"kube-system", "kube-public", "kube-node-lease", "local-path-storage", names.CONTROL_NAMESPACE}
)
LOG_LEVELS: Final = ("debug", "info", "warning", "error")  # of `qbitel proxy`
PULL_POLICIES: Final = ("", "Always", "IfNotPresent", "Never")

# The algorithms by the names that users know: FIPS 203 and 204, and what they were called in the competition.
_KEY_EXCHANGES: Final = frozenset({"kyber-1024", "ml-kem-1024"})
_SIGNATURES: Final = frozenset({"dilithium-5", "ml-dsa-87"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SidecarConfig:
    """The sidecar container: its image, resources (Kubernetes' quantities), algorithms and ports.

    `quantum_algorithm` and `signature_algorithm` name the key exchange and the identities; there is one of each, under
    its FIPS name (ml-kem-1024, ml-dsa-87) and its old one (kyber-1024, dilithium-5). `metrics_port` serves Prometheus
    while `enable_metrics`; `proxy_port` is where interception sends what the application dials. Raises UserError.
    """

    image: str = DEFAULT_IMAGE
    cpu_request: str = "100m"
    cpu_limit: str = "500m"
    memory_request: str = "128Mi"
    memory_limit: str = "512Mi"
    quantum_algorithm: str = "kyber-1024"
    signature_algorithm: str = "dilithium-5"
    enable_metrics: bool = True
    metrics_port: int = names.METRICS_PORT
    proxy_port: int = names.OUTBOUND_PORT

    def __post_init__(self) -> None:
        if not self.image or self.image.split() != [self.image]:
            raise UserError(f"image: {self.image!r} is no image; write NAME:TAG or NAME@DIGEST")
        for kind in ("cpu", "memory"):
            request, limit = (
                _quantity(f"{kind}_{what}", getattr(self, f"{kind}_{what}")) for what in ("request", "limit")
            )
            if request > limit:
                raise UserError(f"{kind}_request is more than {kind}_limit; Kubernetes would refuse every pod")
        if self.quantum_algorithm.lower() not in _KEY_EXCHANGES:
            raise UserError(_no_algorithm("quantum_algorithm", self.quantum_algorithm, _KEY_EXCHANGES))
        if self.signature_algorithm.lower() not in _SIGNATURES:
            raise UserError(_no_algorithm("signature_algorithm", self.signature_algorithm, _SIGNATURES))
        taken = {names.INBOUND_PORT, names.TUNNEL_PORT, names.ADMIN_PORT, names.HEALTH_PORT, names.SELF_TEST_PORT}
        for name, port in (("metrics_port", self.metrics_port), ("proxy_port", self.proxy_port)):
            if not 1 <= port <= 65535 or port in taken:
                raise UserError(f"{name}: {port} is no free port; the sidecar itself needs {_numbers(taken)}")
            # Beside it, what interception never captures, whatever `metrics_port` is.
            taken |= {port, names.METRICS_PORT, names.MERGED_METRICS_PORT}


@dataclass(frozen=True, slots=True, kw_only=True)
class InjectorConfig:
    """Everything that is the same for all pods of an installation. Raises UserError.

    `native_sidecars` is whether the cluster can start them. `mesh_cidrs` are destinations that are reached by TLS of
    the mesh or not at all. `excluded_namespaces` are those whose pods never get a sidecar, beside `ignored_namespaces`
    and the control namespace. `authority` is HOST:PORT. With `discovery` policies and peers are those that
    `qbitel discovery` publishes; `root_namespace` ("": the control namespace) is whose policies hold everywhere.
    """

    sidecar: SidecarConfig = field(default_factory=SidecarConfig)
    native_sidecars: bool = True
    control_namespace: str = names.CONTROL_NAMESPACE
    ignored_namespaces: frozenset[str] = IGNORED_NAMESPACES
    excluded_namespaces: frozenset[str] = frozenset()
    authority: str = f"{names.AUTHORITY_SERVICE}.{names.CONTROL_NAMESPACE}.svc:{names.AUTHORITY_PORT}"
    trust_domain: str = names.DEFAULT_TRUST_DOMAIN
    mtls_mode: MTLSMode = MTLSMode.STRICT
    profile: str = "qbitel"
    mesh_cidrs: tuple[str, ...] = ()
    log_level: str = "info"
    pull_policy: str = ""
    discovery: bool = False
    root_namespace: str = ""

    def __post_init__(self) -> None:
        try:
            check_trust_domain(self.trust_domain)
        except InvalidSpiffeId as error:
            raise UserError(f"the trust domain: {error}") from None
        if self.profile not in PROFILES:
            raise UserError(f"{self.profile!r} is no profile; there are: {', '.join(PROFILES)}")
        if self.log_level not in LOG_LEVELS:
            raise UserError(f"{self.log_level!r} is no level; there are: {', '.join(LOG_LEVELS)}")
        if self.pull_policy not in PULL_POLICIES:
            raise UserError(f"{self.pull_policy!r} is no pull policy; there are: {', '.join(PULL_POLICIES[1:])}")
        if self.root_namespace and not self.discovery:
            raise UserError("a root namespace goes with discovery (--discovery): sidecars have no policies without it")

    def is_ignored(self, namespace: str) -> bool:
        """Whether pods of `namespace` never get a sidecar."""
        return namespace in {*self.ignored_namespaces, *self.excluded_namespaces, self.control_namespace}


def native_sidecars_in(version: str) -> bool:
    """Whether a cluster of `version` (`1.29`, `v1.31.4`) starts native sidecars. Raises UserError."""
    parts = version.removeprefix("v").split(".")
    if len(parts) < 2 or not all(one.isascii() and one.isdigit() and len(one) < 5 for one in parts[:2]):
        raise UserError(f"{version[:40]!r} is no version of Kubernetes such as 1.29")
    return (int(parts[0]), int(parts[1])) >= NATIVE_SINCE


def _quantity(name: str, text: str) -> Decimal:
    amount = quantity(text)
    if amount is None:
        raise UserError(f"{name}: {text!r} is no quantity of Kubernetes such as 100m or 128Mi")
    return amount


def _no_algorithm(name: str, value: str, known: frozenset[str]) -> str:
    return f"{name}: {value!r} is not offered; there is one, under two names: {' or '.join(sorted(known))}"


def _numbers(ports: set[int]) -> str:
    return ", ".join(map(str, sorted(ports)))
