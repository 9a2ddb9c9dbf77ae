"""MutualTLSConfigurator: who speaks mutual TLS with whom, who may, and what that comes to."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from control import mtls_verification
from control.mtls_verification import MTLSVerification
from control.sources import principals
from mesh.building import checks
from mesh.building.authorization_policy import authorization_policy
from mesh.building.client_tls import ClientTls
from mesh.building.destination_rule import destination_rule
from mesh.building.metadata import PROFILES
from mesh.building.peer_authentication import mode_name, peer_authentication
from mesh.building.traffic_policy import ConnectionPool, LoadBalancer, OutlierDetection, TrafficPolicy
from mesh.modes import MTLSMode
from mesh.names import DEFAULT_TRUST_DOMAIN
from mesh.selectors import ROOT_NAMESPACE

# The name that Istio's own documentation gives to what holds for a whole mesh or namespace.
DEFAULT_NAME: Final = "default"
DENY_ALL: Final = "deny-all"
HEALTH_PORTS: Final = "health-ports"
# Where clusters have their DNS.
_DNS_NAMESPACE: Final = "kube-system"


class MutualTLSConfigurator:
    """Writes mutual TLS and authorization as Istio's resources: plain dicts, which our own sidecars read as well.

    `default_mode` (a MTLSMode or its name) is what a method takes where no mode is given. `trust_domain` is that of
    the mesh's identities, `root_namespace` the namespace whose resources hold for the whole mesh, `profile` the crypto
    profile of destination rules: qbitel, hybrid-l5, cnsa2 or compat.

    What was written is kept in memory, one for each kind, namespace and name, for `verify_mtls_configuration`. Every
    method raises ValueError, which names the argument and says what is allowed, and returns what shares nothing with
    its arguments.
    """

    def __init__(
        self,
        default_mode: MTLSMode | str = MTLSMode.STRICT,
        *,
        trust_domain: str = DEFAULT_TRUST_DOMAIN,
        root_namespace: str = ROOT_NAMESPACE,
        profile: str = "qbitel",
    ) -> None:
        self.default_mode = MTLSMode(
            checks.choice("default_mode", _word(default_mode), (mode.value for mode in MTLSMode))
        )
        self.trust_domain = checks.trust_domain("trust_domain", trust_domain)
        self.root_namespace = checks.label_name("root_namespace", root_namespace)
        self.profile = checks.choice("profile", profile, PROFILES)
        self._written: dict[tuple[str, str, str], dict[str, Any]] = {}

    @property
    def resources(self) -> list[dict[str, Any]]:
        """Copies of everything that was written, in the order of its first writing."""
        return copy.deepcopy(list(self._written.values()))

    # Modes

    def create_mesh_wide_mtls(self, mode: MTLSMode | str | None = None) -> dict[str, Any]:
        """Return the mode of every workload that nothing nearer says otherwise for."""
        return self._keep(peer_authentication(DEFAULT_NAME, self.root_namespace, self._mode(mode)))

    def create_namespace_mtls(self, namespace: str, mode: MTLSMode | str | None = None) -> dict[str, Any]:
        """Return the mode of a namespace's workloads; "UNSET" gives it back to the mesh."""
        self._not_root(namespace, "create_mesh_wide_mtls says what holds for the mesh")
        return self._keep(peer_authentication(DEFAULT_NAME, namespace, self._mode(mode)))

    def create_workload_mtls(
        self,
        name: str,
        namespace: str,
        selector: Mapping[str, str],
        mode: MTLSMode | str | None = None,
        *,
        port_modes: Mapping[int, MTLSMode | str] | None = None,
    ) -> dict[str, Any]:
        """Return the mode of the pods that have the labels of `selector`, and of single ports of theirs.

        `port_modes` maps ports of the pod (not of its Service) to modes; with `mode` "UNSET" only these are said.
        """
        self._not_root(namespace, "a workload is governed from its own namespace")
        if selector is None:
            raise checks.refused("selector", selector, "the labels of the pods, as in {'app': 'web'}")
        return self._keep(
            peer_authentication(name, namespace, self._mode(mode), selector=selector, port_modes=port_modes)
        )

    def create_destination_rule(
        self,
        name: str,
        host: str,
        namespace: str,
        enable_quantum_tls: bool = True,
        *,
        tls_mode: str | None = None,
        tls: ClientTls | None = None,
        profile: str | None = None,
        connection_pool: ConnectionPool | None = None,
        outlier_detection: OutlierDetection | None = None,
        load_balancer: LoadBalancer | None = None,
        ports: Mapping[int, TrafficPolicy] | None = None,
        subsets: Mapping[str, Mapping[str, str]] | None = None,
        subset_policies: Mapping[str, TrafficPolicy] | None = None,
        export_to: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        """Return how sidecars dial `host`.

        `enable_quantum_tls` is no field of Istio's. It becomes the standard tls block with mode ISTIO_MUTUAL, which
        every sidecar of either mesh understands, and the annotation qbitel.io/profile, by which our sidecars know the
        crypto profile to speak (`profile`, or else the configurator's) and which Istio passes over. So Istio's own
        sidecars speak mutual TLS to the host by what this says, but not post-quantum identities.

        With False nothing is said about TLS, and the mesh decides by what the server accepts, unless `tls_mode` is
        "DISABLE" (plaintext) or "ISTIO_MUTUAL", or `tls` is a ClientTls for a server outside of the mesh. `ports` and
        `subset_policies` map ports of the Service, and names of `subsets`, to a TrafficPolicy of their own. The other
        arguments are Istio's; one host should have one rule.
        """
        if checks.flag("enable_quantum_tls", enable_quantum_tls):
            if tls is not None:
                raise ValueError("tls: it is for a server outside of the mesh; give it with enable_quantum_tls=False")
            if tls_mode not in (None, "ISTIO_MUTUAL"):  # a tuple: what is given need not be hashable
                raise checks.refused("tls_mode", tls_mode, "ISTIO_MUTUAL, or enable_quantum_tls=False with another one")
            tls_mode, profile = "ISTIO_MUTUAL", self.profile if profile is None else profile
        elif profile is not None:
            raise ValueError("profile: it is a profile of quantum-safe TLS; leave it out, or enable_quantum_tls")
        return self._keep(
            destination_rule(
                name,
                namespace,
                host,
                tls_mode=tls_mode,
                tls=tls,
                profile=profile,
                connection_pool=connection_pool,
                outlier_detection=outlier_detection,
                load_balancer=load_balancer,
                ports=ports,
                subsets=subsets,
                subset_policies=subset_policies,
                export_to=export_to,
            )
        )

    # Authorization

    def create_authorization_policy(
        self,
        name: str,
        namespace: str,
        action: str = "ALLOW",
        rules: Sequence[Mapping[str, Any]] = (),
        selector: Mapping[str, str] | None = None,
        *,
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """Return an AuthorizationPolicy for the pods with the labels of `selector`, or else for the namespace.

        `action` is ALLOW, DENY or AUDIT. `rules` are as Istio spells them: dicts with `from`, `to` and `when`. ALLOW
        without rules allows nothing, a rule `{}` is everything. In the root namespace it is about every namespace.
        """
        checks.choice("action", action, ("ALLOW", "DENY", "AUDIT"))
        return self._keep(authorization_policy(name, namespace, action, rules, selector=selector, dry_run=dry_run))

    def create_zero_trust_policy(
        self,
        namespace: str,
        allowed_services: Sequence[str],
        *,
        additional_sources: Sequence[str] = (),
        health_ports: Sequence[int] = (),
        selector_label: str = "app",
    ) -> list[dict[str, Any]]:
        """Return what denies everything in a namespace but the named services among one another.

        First `deny-all`, with an empty spec: nothing is allowed that no other policy allows. Then `allow-<service>`
        for each service, for the pods whose label `selector_label` is its name: it may be called by the service
        accounts that have the services' names, its own included. `additional_sources` may call them as well: another
        account ("batch"), another namespace's ("shop/web"), a whole principal, as that of an ingress gateway.

        What stays reachable: DNS, because policies are about what comes into this namespace's pods and names are
        asked for elsewhere (where DNS itself lives, in kube-system, this is refused); health and metrics at the
        sidecar's own ports, 15020, 15021 and 15090, which are not intercepted: the injector rewrites the kubelet's
        probes to them. Where probes are not rewritten, `health_ports` are ports of the pods that anyone may reach; a
        last policy, `health-ports`, says so, and STRICT pods need another mode there (create_workload_mtls).
        """
        self._not_root(namespace, "there it would deny the whole mesh")
        if namespace == _DNS_NAMESPACE:
            raise ValueError(
                f"namespace: {namespace!r} has the cluster's DNS, which every pod needs; govern it by hand"
            )
        checks.label_key("selector_label", selector_label)
        services = checks.several("allowed_services", allowed_services, checks.label_name)
        callers = principals("allowed_services", services, namespace, self.trust_domain)
        for principal in principals("additional_sources", additional_sources, namespace, self.trust_domain):
            if principal not in callers:
                callers.append(principal)
        policies = [authorization_policy(DENY_ALL, namespace)]
        policies += [
            authorization_policy(
                f"allow-{service}",
                namespace,
                rules=[{"from": [{"source": {"principals": callers}}]}],
                selector={selector_label: service},
            )
            for service in services
        ]
        if ports := checks.several("health_ports", health_ports, checks.port):
            operation = {"operation": {"ports": [str(port) for port in ports]}}
            policies.append(authorization_policy(HEALTH_PORTS, namespace, rules=[{"to": [operation]}]))
        return [self._keep(policy) for policy in policies]

    # What it comes to

    def verify_mtls_configuration(
        self,
        source_service: str,
        dest_service: str,
        namespace: str = "default",
        *,
        dest_namespace: str | None = None,
        port: int | None = None,
        resources: Sequence[Mapping[str, Any]] | None = None,
        path: str | Path | None = None,
        kubeconfig: str | Path | None = None,
    ) -> MTLSVerification:
        """Return what would really happen when one service calls another: a dict whose `str()` is for people.

        It says the effective mode on both sides and the crypto profile, whether the caller is let in and which policy
        decides, at each port that something speaks of (or at `port`), and what contradicts what, as a STRICT server
        and a DestinationRule that says DISABLE.

        What is looked at is what this configurator has written, together with `resources`, the files of `path` (a
        folder or one file) and what the cluster of `kubeconfig` has (needs the extra `kubernetes`). Where the same
        resource is in several, `resources` count before what was written, and that before files and cluster.

        A service's name stands for the Service or the workload of that name among them; where there is none, for pods
        with the label app=<name> and the service account <name>, and the answer says that this was assumed. Both are
        in `namespace` unless `dest_namespace` says another. ValueError names an argument that cannot be; UserError
        says why files or cluster cannot be read.
        """
        checks.object_name("source_service", source_service)
        checks.object_name("dest_service", dest_service)
        checks.label_name("namespace", namespace)
        there = namespace if dest_namespace is None else checks.label_name("dest_namespace", dest_namespace)
        readings = [mtls_verification.given("resources", list(self._written.values()))]
        if resources is not None:
            readings.append(mtls_verification.given("resources", resources))
        if path is not None:
            readings.insert(0, mtls_verification.place("path", path))
        if kubeconfig is not None:
            readings.insert(0, mtls_verification.cluster("kubeconfig", kubeconfig))
        return mtls_verification.verification_of(
            readings,
            f"{namespace}/{source_service}",
            f"{there}/{dest_service}",
            None if port is None else checks.port("port", port),
            namespace=namespace,
            root_namespace=self.root_namespace,
            trust_domain=self.trust_domain,
        )

    def _mode(self, mode: MTLSMode | str | None) -> str:
        return mode_name("mode", self.default_mode if mode is None else mode)

    def _not_root(self, namespace: object, reason: str) -> None:
        if checks.label_name("namespace", namespace) == self.root_namespace:
            raise ValueError(f"namespace: {namespace!r} is the mesh's root namespace; {reason}")

    def _keep(self, resource: dict[str, Any]) -> dict[str, Any]:
        metadata = resource["metadata"]
        key = (resource["kind"], metadata["namespace"], metadata["name"])
        self._written[key] = copy.deepcopy(resource)
        return resource


def _word(mode: object) -> object:
    return mode.value if isinstance(mode, MTLSMode) else mode
