"""One caller and one workload that is called: how they would speak at a port, and what would be decided there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

from mesh import names
from mesh.authorization import AuthorizationPolicy
from mesh.building.metadata import PROFILE_ANNOTATION, PROFILES
from mesh.decision import Compiled, Decision, Facts, compile_policies
from mesh.inventory import Place
from mesh.modes import MTLSMode
from mesh.outlook import Forecast, Outlook
from mesh.peer_authentication import EffectiveMode, effective_mode
from mesh.resources import ResourceSet
from mesh.selectors import Workload
from mesh.traffic import CLUSTER_DOMAIN, DestinationRule, TlsMode, destination_rule

# How bytes travel. "foreign TLS" proves no identity of the mesh: the server's sidecar hands it on as it came.
Transport = Literal["mutual TLS", "plaintext", "foreign TLS", "refused"]
DEFAULT_PROFILE: Final = PROFILES[0]
_LAST_PORT: Final = 65535


@dataclass(frozen=True, slots=True)
class ClientSide:
    """How the caller's sidecar dials. `mode` None: no rule says, and it does what the server accepts (auto mTLS)."""

    mode: TlsMode | None
    decided_by: str
    rule: DestinationRule | None
    profile: str  # of the post-quantum handshake, where there is one


@dataclass(frozen=True, slots=True)
class PortVerification:
    """What happens at one port."""

    port: int | None  # of the pods; None: every port that nothing speaks of
    service_port: int | None  # by which callers know it, where that is known
    server: EffectiveMode
    client: ClientSide
    transport: Transport
    connection: Decision  # of a sidecar that decides about connections and reads no requests
    outlook: Outlook  # of one that reads requests too

    @property
    def allowed(self) -> bool:
        """Whether a connection comes through."""
        return self.transport != "refused" and self.connection.allowed

    @property
    def profile(self) -> str | None:
        """The crypto profile that is spoken; None where mutual TLS is not."""
        return self.client.profile if self.transport == "mutual TLS" else None

    @property
    def reason(self) -> str:
        """Why `allowed` is what it is."""
        if self.transport != "refused":
            return self.connection.reason
        dials = "plaintext" if self.client.mode is TlsMode.DISABLE else f"TLS ({_word(self.client.mode)})"
        accepts = "mutual TLS of the mesh alone" if self.server.mode is MTLSMode.STRICT else "plaintext alone"
        return f"refused: the caller dials {dials}, and the workload accepts {accepts}"


def transport_between(client: TlsMode | None, server: MTLSMode) -> Transport:
    """How bytes travel where a caller dials so and a workload accepts that."""
    match client, server:
        case None, MTLSMode.DISABLE:
            return "plaintext"
        case (None, _) | (TlsMode.ISTIO_MUTUAL, MTLSMode.STRICT | MTLSMode.PERMISSIVE):
            return "mutual TLS"
        case TlsMode.ISTIO_MUTUAL, _:
            return "refused"  # the mesh's TLS would reach an application that knows nothing of it
        case _, MTLSMode.STRICT:
            return "refused"
        case TlsMode.DISABLE, _:
            return "plaintext"
    return "foreign TLS"


class Pair:
    """`source` calls `destination`, which was found at `place`.

    `principal` is for a source whose identity is not that of its service account.
    """

    def __init__(
        self,
        resources: ResourceSet,
        source: Workload,
        destination: Workload,
        place: Place,
        *,
        trust_domain: str = names.DEFAULT_TRUST_DOMAIN,
        principal: str = "",
    ) -> None:
        self.resources = resources
        self.source = source
        self.destination = destination
        self.principal = principal or f"{trust_domain}/ns/{source.namespace}/sa/{source.service_account}"
        self._place = place
        self.rule = destination_rule(resources, dialled_host(destination, place), source, destination.namespace)
        self._trust_domain = trust_domain

    @cached_property
    def compiled(self) -> Compiled:
        """The policies that are about the destination."""
        return compile_policies(
            self.resources.authorization_policies,
            self.destination,
            trust_domain=self._trust_domain,
            root_namespace=self.resources.root_namespace,
        )

    @cached_property
    def _forecast(self) -> Forecast:
        return Forecast(self.compiled, trust_domain=self._trust_domain)

    @cached_property
    def _named(self) -> frozenset[int]:
        return frozenset(named_ports(self.resources, self.destination, self.compiled.policies))

    def ports(self) -> list[int | None]:
        """The ports that are worth a look: the Service's, or else those that something names, and the others as one."""
        if self._place.service is not None and self._place.service.ports:
            return [port.number for port in self._place.service.ports]
        of_rule = self.rule.traffic_policy.ports if self.rule is not None else ()
        return [*sorted(self._named.union(of_rule)), None]

    def at(self, port: int | None) -> PortVerification:
        """What happens at a port of the Service or of the pods; None: at one that nothing names."""
        on_pods = self._place.port_on_pods(port) if port is not None else None
        of_service = self._place.port_of_service(port) if port is not None else None
        server, client, transport = self.speak(self.asked(on_pods), port if of_service is None else of_service)
        principal = self.principal if transport == "mutual TLS" else None
        return PortVerification(
            on_pods,
            of_service,
            server,
            client,
            transport,
            self.decide(on_pods, principal),
            self.outlook(on_pods, principal),
        )

    def speak(self, on_pods: int, of_service: int | None) -> tuple[EffectiveMode, ClientSide, Transport]:
        """How both sides speak at a port of the pods, which callers dial as that of the Service."""
        server = effective_mode(self.resources, self.destination, on_pods)
        client = self._client(of_service)
        return server, client, transport_between(client.mode, server.mode)

    def decide(self, port: int | None, principal: str | None) -> Decision:
        """What the policies say of a connection to a port of the pods (None: to one that nothing names)."""
        return self.compiled.decide(Facts(self.asked(port), principal))

    def outlook(self, port: int | None, principal: str | None) -> Outlook:
        """What awaits a peer at a port of the pods, before its requests are known."""
        return self._forecast.of(principal, self.asked(port))

    def asked(self, port: int | None) -> int:
        """`port`, or one that stands for all that nothing names."""
        return unnamed_port(self._named) if port is None else port

    def _client(self, port: int | None) -> ClientSide:
        rule = self.rule
        if rule is None:
            return ClientSide(None, "no DestinationRule", None, DEFAULT_PROFILE)
        policy = rule.traffic_policy if port is None else rule.traffic_policy.at(port)
        profile = rule.metadata.annotations.get(PROFILE_ANNOTATION, DEFAULT_PROFILE)
        where = f"{rule.metadata}, port {port}" if port in rule.traffic_policy.ports else str(rule.metadata)
        if policy.tls is None:
            return ClientSide(None, f"{where}, which says nothing of TLS", rule, profile)
        return ClientSide(policy.tls.mode, where, rule, profile)


def dialled_host(destination: Workload, place: Place) -> str:
    """The host by which callers know a workload that was found at `place`: a Service's, or what would be its name."""
    name = place.service.name if place.service else destination.name or destination.service_account
    return f"{name}.{destination.namespace}.svc.{CLUSTER_DOMAIN}"


def named_ports(resources: ResourceSet, workload: Workload, policies: Iterable[AuthorizationPolicy]) -> Iterator[int]:
    """The ports of `workload` that a PeerAuthentication or one of `policies` sets apart, in no order."""
    for one in resources.peer_authentications:
        if one.selector.selects(workload, one.metadata.namespace, resources.root_namespace):
            yield from one.port_modes
    for policy in policies:
        for rule in policy.rules:
            for operation in rule.operations:
                yield from map(int, (*operation.ports, *operation.not_ports))
            for condition in rule.conditions:
                if condition.key == "destination.port":
                    yield from map(int, (*condition.values, *condition.not_values))


def unnamed_port(named: Iterable[int]) -> int:
    """A port that is none of `named`: what is decided about it is decided about all of these others."""
    taken = frozenset(named)
    return next(port for port in range(_LAST_PORT, 0, -1) if port not in taken)


def _word(mode: TlsMode | None) -> str:
    return mode.value if mode is not None else "by itself"
