"""What would really happen between two workloads: how they would speak, who would be let in, and what contradicts what.

Every answer comes from the functions that a sidecar decides by; here they are asked for both sides of one pair.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mesh import names
from mesh.conflicts import of_pair
from mesh.documents import Problem
from mesh.inventory import Inventory, Place
from mesh.metadata import Metadata
from mesh.outlook import Clause
from mesh.pair import Pair, PortVerification
from mesh.resources import ResourceSet
from mesh.selectors import Workload

_LABEL_WIDTH: Final = 11


@dataclass(frozen=True, slots=True)
class Verification:
    """What happens between `source` and `destination`; `str()` tells it to a person, `as_dict()` to a program."""

    source: Workload
    destination: Workload
    principal: str  # of the source: its SPIFFE ID without the scheme
    ports: tuple[PortVerification, ...]
    conflicts: tuple[Problem, ...]
    assumptions: tuple[str, ...]  # sentences: what no resource says

    @property
    def allowed(self) -> bool:
        """Whether connections come through at every port that was looked at."""
        return all(port.allowed for port in self.ports)

    @property
    def secure(self) -> bool:
        """Whether whatever comes through is mutual TLS, at every port that was looked at."""
        return all(port.transport in {"mutual TLS", "refused"} for port in self.ports)

    def as_dict(self) -> dict[str, Any]:
        """The answer in JSON's types."""
        return {
            "source": {"workload": str(self.source), "principal": self.principal},
            "destination": {"workload": str(self.destination), "labels": dict(self.destination.labels)},
            "allowed": self.allowed,
            "secure": self.secure,
            "ports": [_port_as_dict(port) for port in self.ports],
            "conflicts": [problem_as_dict(one) for one in self.conflicts],
            "assumptions": list(self.assumptions),
        }

    def __str__(self) -> str:
        lines = [f"{self.source} calls {self.destination}, as {self.principal}"]
        for port in self.ports:
            lines += _port_lines(port)
        if self.conflicts:
            lines += ["conflicts", *(f"  {one.severity}: {one}" for one in self.conflicts)]
        if self.assumptions:
            lines += ["assumed", *(f"  {one}" for one in self.assumptions)]
        return "\n".join(lines)


def verify(
    resources: ResourceSet,
    source: Workload | str,
    destination: Workload | str,
    port: int | None = None,
    *,
    namespace: str = "default",
    trust_domain: str = names.DEFAULT_TRUST_DOMAIN,
) -> Verification:
    """What `resources` make of connections from `source` to `destination`.

    A name ("web", of `namespace`, or "shop/web") is looked for among the Services and workloads in the set; where it
    is not there, it stands for pods with the label app=<name> and the service account <name>, and the answer says that
    this was assumed. `port` is the Service's or the pods'; without it every port of the Service is looked at, or else
    each port that a resource names, and all others as one. ValueError where `port` is none.
    """
    if port is not None and not 0 < port <= 65535:
        raise ValueError(f"port: {port} is none; give 1 to 65535")
    inventory = Inventory.of(resources.foreign)
    here, there = _place(inventory, source, namespace), _place(inventory, destination, namespace)
    pair = Pair(resources, here.workloads[0], there.workloads[0], there, trust_domain=trust_domain)
    ports = tuple(pair.at(one) for one in ([port] if port is not None else pair.ports()))
    conflicts = (*of_pair(pair, ports), *_of_others(pair, there, ports), *_of_port(there, port))
    assumptions = [one.assumed for one in (here, there) if one.assumed]
    if len(here.workloads) > 1:
        assumptions.append(f"of the workloads behind Service {here.service}, it is {pair.source} that calls")
    return Verification(
        pair.source, pair.destination, pair.principal, ports, conflicts, tuple(dict.fromkeys(assumptions))
    )


def _place(inventory: Inventory, who: Workload | str, namespace: str) -> Place:
    if isinstance(who, str):
        first, slash, second = who.partition("/")
        return inventory.find(first, second) if slash else inventory.find(namespace, who)
    service = next((one for one in inventory.services if one.selects(who)), None)
    port_names = inventory.find(service.namespace, service.name).port_names if service else {}
    return Place((who,), service, "", port_names)


def _of_others(pair: Pair, place: Place, ports: Sequence[PortVerification]) -> Iterator[Problem]:
    """The other workloads behind the same Service, where they are governed differently: callers cannot choose."""
    for workload in place.workloads[1:]:
        other = Pair(pair.resources, pair.source, workload, place, trust_domain=pair.principal.partition("/")[0])
        for port in ports:
            theirs = other.at(port.service_port if port.service_port is not None else port.port)
            if (theirs.transport, theirs.allowed) != (port.transport, port.allowed):
                message = (
                    f"{workload} stands behind the same Service and differs at {_port_name(port)}: "
                    f"{theirs.transport}, {'allowed' if theirs.allowed else theirs.reason}"
                )
                yield Problem("", 0, "", f"Service {place.service}", message, "warning")


def _of_port(place: Place, port: int | None) -> Iterator[Problem]:
    if port is not None and place.service is not None and place.port_of_service(port) is None:
        has = ", ".join(str(one.number) for one in place.service.ports) or "none"
        yield Problem("", 0, "", f"Service {place.service}", f"has no port {port}; it has {has}", "warning")


# Words


def _port_name(port: PortVerification) -> str:
    if port.port is None:
        return "any other port"
    if port.service_port is not None and port.service_port != port.port:
        return f"port {port.service_port} ({port.port} of the pods)"
    return f"port {port.port}"


def _port_lines(port: PortVerification) -> Iterator[str]:
    over = f"{'allowed' if port.allowed else 'denied'}, over {port.transport}"
    yield f"{_port_name(port)}: {'refused' if port.transport == 'refused' else over}"
    server = port.server.policy.metadata if port.server.policy else None
    yield _row("workload", f"{port.server.mode.value}, by {port.server.decided_by}{place_of(server)}")
    client = port.client.rule.metadata if port.client.rule else None
    dials = port.client.mode.value if port.client.mode else "as the workload accepts it"
    yield _row("caller", f"{dials}, by {port.client.decided_by}{place_of(client)}")
    yield _row("profile", port.profile or "none: no post-quantum TLS")
    yield _row("decision", port.reason)
    if port.transport != "refused" and port.outlook.answer == "depends":
        yield _row("requests", str(port.outlook))


def _row(label: str, text: str) -> str:
    return f"  {label:<{_LABEL_WIDTH}} {text}"


def place_of(metadata: Metadata | None) -> str:
    """Where a resource stands, for the end of a line: " (file.yaml:12)", or nothing where that is not known."""
    if metadata is None or not metadata.source:
        return ""
    line = metadata.line()
    return f" ({metadata.source}:{line})" if line else f" ({metadata.source})"


def problem_as_dict(problem: Problem) -> dict[str, Any]:
    """A problem in JSON's types."""
    return {
        "severity": problem.severity,
        "source": problem.source,
        "line": problem.line or None,
        "resource": problem.resource,
        "field": problem.field,
        "message": problem.message,
    }


def _port_as_dict(port: PortVerification) -> dict[str, Any]:
    return {
        "port": port.port,
        "service_port": port.service_port,
        "allowed": port.allowed,
        "reason": port.reason,
        "transport": port.transport,
        "profile": port.profile,
        "server": {"mode": port.server.mode.value, "decided_by": port.server.decided_by, "level": port.server.level},
        "client": {"mode": port.client.mode.value if port.client.mode else None, "decided_by": port.client.decided_by},
        "policy": port.connection.policy if port.transport != "refused" else None,
        "rule": port.connection.rule if port.transport != "refused" else None,
        "requests": {
            "answer": port.outlook.answer,
            "allowed_for": _clauses(port.outlook.allowed_for),
            "denied_for": _clauses(port.outlook.denied_for),
        },
    }


def _clauses(clauses: Sequence[Clause]) -> list[dict[str, Any]]:
    return [{"policy": one.policy, "rule": one.rule, "where": one.where} for one in clauses]
