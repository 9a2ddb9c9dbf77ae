"""What in a set of resources cannot have been meant, and what is open that looks closed.

One resource by itself may be right and still be undone by another: who reads resources one by one (mesh/resources.py)
does not see that. `of_pair` looks at one caller and one workload, `of_set` at everything that a set names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from mesh.authorization import Action, AuthorizationPolicy, Source
from mesh.building.metadata import PROFILE_ANNOTATION, PROFILES
from mesh.documents import Path, Problem, Severity
from mesh.following import unfollowed
from mesh.inventory import Inventory, Place
from mesh.metadata import Metadata
from mesh.modes import MTLSMode
from mesh.pair import Pair, PortVerification, transport_between
from mesh.peer_authentication import PeerAuthentication, effective_mode
from mesh.request_authentication import RequestAuthentication, jwt_rules
from mesh.resources import ResourceSet
from mesh.routes import MESH_GATEWAY, VirtualService
from mesh.selectors import Workload
from mesh.traffic import CLUSTER_DOMAIN, DestinationRule, TlsMode, TrafficPolicy, full_host, rivals

_TLS: Path = ("spec", "trafficPolicy", "tls", "mode")


def of_pair(pair: Pair, ports: Sequence[PortVerification]) -> tuple[Problem, ...]:
    """What stands in the way of one pair at these ports, and what it leaves open; each thing once."""
    found = [problem for port in ports for problem in (*_of_transport(port), *_of_identity(pair, port))]
    for port in ports[:1]:
        for younger in port.server.ignored:
            message = "counts for nothing here: an older one has the same scope"
            found.append(younger.metadata.problem((), message, "warning"))
    if pair.rule is not None:
        found += _of_profile(pair.rule)
        found += unfollowed(pair.rule)
        found += _of_subsets(pair.rule, pair.destination)
    found += _of_tokens(pair.resources, pair.destination, pair.compiled.policies)
    return tuple(dict.fromkeys(found))


def of_set(resources: ResourceSet) -> tuple[Problem, ...]:
    """What contradicts what among all resources of a set, with the workloads that its documents know."""
    inventory = Inventory.of(resources.foreign)
    found: list[Problem] = list(inventory.problems)
    for rule in resources.destination_rules:
        found += _of_profile(rule)
        found += unfollowed(rule)
        found += _of_server(resources, inventory, rule)
    found += _of_same_host(resources)
    for authentication in resources.request_authentications:
        found += _of_believed(resources, authentication)
    for policy in resources.authorization_policies:
        found += _of_policy(resources, policy)
    found += _of_nobody(resources, inventory)
    return tuple(dict.fromkeys(found))


# One pair


def _of_transport(port: PortVerification) -> Iterator[Problem]:
    client, server = port.client, port.server
    if client.rule is not None and client.mode is not None:
        if port.transport == "refused":
            message = f"{port.reason} ({server.decided_by})"
            yield client.rule.metadata.problem(_TLS, message, "error")
        elif client.mode is not TlsMode.ISTIO_MUTUAL and server.mode is not MTLSMode.DISABLE:
            message = f"makes callers speak {port.transport}, where mutual TLS would be accepted"
            yield client.rule.metadata.problem(_TLS, message, "warning")
    if server.mode is MTLSMode.PERMISSIVE:
        message = "PERMISSIVE: plaintext is let in beside mutual TLS, from whoever reaches the pods"
        yield _problem(server.policy.metadata if server.policy else None, ("spec", "mtls"), message, "warning")


def _of_identity(pair: Pair, port: PortVerification) -> Iterator[Problem]:
    """A caller that would be let in, if only it could show who it is."""
    if port.transport not in {"plaintext", "foreign TLS"} or port.connection.allowed:
        return
    known = pair.decide(port.port, pair.principal)
    for policy in pair.compiled.policies:
        if known.allowed and policy.metadata.key == known.policy:
            message = f"allows {pair.principal}, but over {port.transport} nobody shows who they are: denied"
            yield policy.metadata.problem(("spec", "rules", known.rule or 0), message, "error")


def _of_profile(rule: DestinationRule) -> Iterator[Problem]:
    profile = rule.metadata.annotations.get(PROFILE_ANNOTATION)
    if profile is not None and profile not in PROFILES:
        message = f"{profile!r:.80} is none of {', '.join(PROFILES)}"
        yield rule.metadata.problem(("metadata", "annotations", PROFILE_ANNOTATION), message, "error")


def _of_subsets(rule: DestinationRule, destination: Workload) -> Iterator[Problem]:
    for index, subset in enumerate(rule.subsets):
        policy = subset.traffic_policy
        if policy is not None and policy.tls is not None and _has(destination, subset.labels.items()):
            message = f"where routes name the subset {subset.name}, callers dial {policy.tls.mode.value}"
            yield rule.metadata.problem(("spec", "subsets", index), message, "note")


def _of_tokens(
    resources: ResourceSet, workload: Workload, policies: Sequence[AuthorizationPolicy]
) -> Iterator[Problem]:
    believed = jwt_rules(resources, workload)
    asking = [policy for policy in policies if asks_for_token(policy)]
    if believed and not asking and not any(rule.required for rule in believed):
        for one in resources.request_authentications:
            if one.rules and one.selector.selects(workload, one.metadata.namespace, resources.root_namespace):
                yield one.metadata.problem(("spec", "jwtRules"), _OPEN_TOKENS, "warning")
    if not believed:
        for policy in asking:
            yield policy.metadata.problem(("spec", "rules"), _UNBELIEVED_TOKENS, "warning")


_OPEN_TOKENS = "no AuthorizationPolicy asks for a token here: a request without one is let in"
_UNBELIEVED_TOKENS = "asks for a token, but no RequestAuthentication is about these workloads: none is ever believed"


def asks_for_token(policy: AuthorizationPolicy) -> bool:
    """Whether a rule looks at who a request's token is of, or at what is in it."""
    return any(
        any(source.request_principals or source.not_request_principals for source in rule.sources)
        or any(condition.key.startswith("request.auth.") for condition in rule.conditions)
        for rule in policy.rules
    )


# A whole set


def _of_same_host(resources: ResourceSet) -> Iterator[Problem]:
    """Two resources about one host, of which the younger does not do what it says."""
    for first, other in rivals(resources.destination_rules):
        message = f"{first.metadata} is about the same host and counts; this one only adds what that leaves out"
        yield other.metadata.problem(("spec", "host"), message, "warning")
    # By host and by a namespace that sees it; "*": by those that all see, "": by any.
    seen: dict[tuple[str, str], VirtualService] = {}
    for service in sorted(resources.virtual_services, key=lambda one: one.metadata.age):
        if MESH_GATEWAY not in service.gateways:
            continue
        visible = {service.metadata.namespace if name == "." else name for name in service.export_to or ("*",)}
        for index, host in enumerate(service.hosts):
            full = full_host(host, service.metadata.namespace).lower()
            met = ("",) if "*" in visible else ("*", *sorted(visible))
            if (older := next((seen[full, name] for name in met if (full, name) in seen), None)) is not None:
                message = f"{host} is a host of {older.metadata} too (IST0109); a caller's sidecar follows one of them"
                yield service.metadata.problem(("spec", "hosts", index), message, "warning")
            for name in ("", *visible):
                seen.setdefault((full, name), service)


def _of_server(resources: ResourceSet, inventory: Inventory, rule: DestinationRule) -> Iterator[Problem]:
    """A rule by which nobody comes through, because the workloads behind its host accept something else."""
    place = _behind(inventory, rule)
    if place is None:
        return
    for path, where, port, policy, workloads in _said(rule, place):
        for workload in workloads if policy.tls is not None else ():
            # Said of no port, it is about all that are not set apart: 0 is none of those.
            server = effective_mode(resources, workload, place.port_on_pods(port) if port is not None else 0)
            mode = policy.tls.mode if policy.tls is not None else None
            if server.level != "default" and transport_between(mode, server.mode) == "refused":
                dialled = mode.value if mode is not None else ""
                message = (
                    f"callers dial {dialled}{where}, and {workload} is {server.mode.value} ({server.decided_by}): "
                    "no connection comes about"
                )
                yield rule.metadata.problem(path, message, "error")
                break


def _said(
    rule: DestinationRule, place: Place
) -> Iterator[tuple[Path, str, int | None, TrafficPolicy, Sequence[Workload]]]:
    """Each policy of a rule: where it stands, of what in words, of which port, and the workloads that it is about."""
    yield _TLS, "", None, rule.traffic_policy, place.workloads
    for port, policy in rule.traffic_policy.ports.items():
        yield ("spec", "trafficPolicy", "portLevelSettings"), f" at port {port}", port, policy, place.workloads
    for index, subset in enumerate(rule.subsets):
        if subset.traffic_policy is not None:
            its = [workload for workload in place.workloads if _has(workload, subset.labels.items())]
            yield ("spec", "subsets", index), f" in subset {subset.name}", None, subset.traffic_policy, its


def _behind(inventory: Inventory, rule: DestinationRule) -> Place | None:
    """The workloads behind a rule's host; None where it is none of the mesh's Services."""
    name, _, rest = rule.full_host.partition(".")
    namespace, _, domain = rest.partition(".")
    if domain != f"svc.{CLUSTER_DOMAIN}":
        return None
    if "*" in name:
        return Place((Workload(namespace, {}, "", "*"),), None, "")
    return inventory.find(namespace, name)


def _of_believed(resources: ResourceSet, believed: RequestAuthentication) -> Iterator[Problem]:
    """Tokens that are verified where they are there, and missed by nobody where they are not."""
    asked_for = any(rule.required for rule in believed.rules) or any(
        asks_for_token(policy) and _meet(resources, believed, policy) for policy in resources.authorization_policies
    )
    if believed.rules and not believed.selector.target_refs and not asked_for:
        yield believed.metadata.problem(("spec", "jwtRules"), _OPEN_TOKENS, "warning")


def _of_policy(resources: ResourceSet, policy: AuthorizationPolicy) -> Iterator[Problem]:
    believed = any(one.rules and _meet(resources, one, policy) for one in resources.request_authentications)
    if asks_for_token(policy) and not policy.selector.target_refs and not believed:
        yield policy.metadata.problem(("spec", "rules"), _UNBELIEVED_TOKENS, "warning")
    server = effective_mode(resources, _sample(policy), 0)
    if (
        server.mode is MTLSMode.DISABLE
        and policy.action is Action.ALLOW
        and policy.metadata.namespace != (resources.root_namespace)
    ):
        for index, rule in enumerate(policy.rules):
            if rule.sources and all(_names_somebody(source) for source in rule.sources):
                message = f"never matches: with {server.decided_by} (DISABLE) nobody shows who they are"
                yield policy.metadata.problem(("spec", "rules", index), message, "warning")


def _names_somebody(source: Source) -> bool:
    return bool(source.principals or source.namespaces or source.service_accounts or source.trust_domains)


def _of_nobody(resources: ResourceSet, inventory: Inventory) -> Iterator[Problem]:
    """Selectors that select nothing which is known, and modes of ports to which no Service leads."""
    selecting: list[PeerAuthentication | AuthorizationPolicy | RequestAuthentication] = [
        *resources.peer_authentications,
        *resources.authorization_policies,
        *resources.request_authentications,
    ]
    for one in selecting:
        namespace = one.metadata.namespace
        there = [
            known.workload
            for known in inventory.workloads
            if namespace in {known.workload.namespace, resources.root_namespace}
        ]
        if there and one.selector.match_labels and not any(map(one.selector.selects_labels, _labels(there))):
            message = f"selects none of the {len(there)} workloads that are known here"
            yield one.metadata.problem(("spec", "selector"), message, "warning")
    for peer in resources.peer_authentications:
        services = [one for one in inventory.services if one.ports and one.selects(_sample(peer))]
        reached = {
            inventory.find(service.namespace, service.name).port_on_pods(port.number)
            for service in services
            for port in service.ports
        }
        for port in peer.port_modes:
            if services and port not in reached:
                message = f"no Service leads to port {port} of the pods: the key is their port, not the Service's"
                yield peer.metadata.problem(("spec", "portLevelMtls", str(port)), message, "warning")


# What is selected


def _sample(one: PeerAuthentication | AuthorizationPolicy) -> Workload:
    """A workload that a resource is about: pods with the labels of its selector and no others."""
    return Workload(one.metadata.namespace, one.selector.match_labels, "")


def _meet(resources: ResourceSet, one: RequestAuthentication, other: AuthorizationPolicy) -> bool:
    """Whether there may be a workload that both are about."""
    namespaces = {one.metadata.namespace, other.metadata.namespace} - {resources.root_namespace}
    mine, theirs = one.selector.match_labels, other.selector.match_labels
    return len(namespaces) <= 1 and all(theirs.get(key, value) == value for key, value in mine.items())


def _has(workload: Workload, labels: Iterable[tuple[str, str]]) -> bool:
    return all(workload.labels.get(key) == value for key, value in labels)


def _labels(workloads: Iterable[Workload]) -> Iterator[Mapping[str, str]]:
    return (workload.labels for workload in workloads)


def _problem(metadata: Metadata | None, path: Path, message: str, severity: Severity) -> Problem:
    """A problem of a resource, or of nobody's where a default decided."""
    return (
        metadata.problem(path, message, severity) if metadata is not None else Problem("", 0, "", "", message, severity)
    )
