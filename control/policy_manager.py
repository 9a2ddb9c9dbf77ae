"""MeshPolicyManager: a service's policies, all of them or one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

from control.service_policy import ServicePolicy
from control.sources import principals
from mesh.building import checks
from mesh.building.authorization_policy import authorization_policy
from mesh.building.destination_rule import destination_rule
from mesh.building.local_rate_limit import local_rate_limit
from mesh.building.metadata import PROFILES
from mesh.building.peer_authentication import peer_authentication
from mesh.building.request_authentication import JwtRule, request_authentication
from mesh.building.route_destination import Destination
from mesh.building.traffic_policy import ALGORITHMS, ConnectionPool, LoadBalancer, OutlierDetection
from mesh.building.virtual_service import HttpRoute, Retries, virtual_service
from mesh.modes import MTLSMode
from mesh.names import DEFAULT_TRUST_DOMAIN

_MUTUAL: Final = "ISTIO_MUTUAL"


class MeshPolicyManager:
    """Writes the policies of services as Istio's resources: plain dicts, which our own sidecars read as well.

    `trust_domain` is that of the callers' identities, `profile` the crypto profile in which services are dialled (an
    annotation, qbitel.io/profile, because Istio has no field for it). Every method raises ValueError, which names the
    argument and says what is allowed, and returns what shares nothing with its arguments.

    For one host there should be one DestinationRule and one VirtualService: where there are two, sidecars take one of
    them, and not always the same. `create_traffic_policy` takes everything that belongs into the first, and
    `create_retry_policy` what belongs into the second; the others are these two with a part of their arguments.
    """

    def __init__(self, *, trust_domain: str = DEFAULT_TRUST_DOMAIN, profile: str = "qbitel") -> None:
        self.trust_domain = checks.trust_domain("trust_domain", trust_domain)
        self.profile = checks.choice("profile", profile, PROFILES)

    # A service as a whole

    def create_complete_service_policies(self, service_policy: ServicePolicy) -> list[dict[str, Any]]:
        """Return all resources of one service, each only where the policy asks for it, in this order.

        PeerAuthentication (require_mtls), RequestAuthentication (jwt_issuer), AuthorizationPolicy (always: who may
        call), EnvoyFilter (rate_limit), DestinationRule (connection pool, outlier detection, load balancer),
        VirtualService (retries, timeout). All are named after the service and live in its namespace.
        """
        if not isinstance(service_policy, ServicePolicy):
            raise checks.refused("service_policy", service_policy, "a ServicePolicy")
        found = [
            self._required_mtls(service_policy),
            self._believed_tokens(service_policy),
            self._allowed_calls(service_policy),
            self._limited_rate(service_policy),
            self._dialling(service_policy),
            self._trying(service_policy),
        ]
        return [resource for resource in found if resource is not None]

    def _required_mtls(self, policy: ServicePolicy) -> dict[str, Any] | None:
        if not policy.require_mtls:
            return None
        return peer_authentication(
            policy.service_name, policy.namespace, MTLSMode.STRICT, selector=policy.pod_labels, labels=_labels(policy)
        )

    def _believed_tokens(self, policy: ServicePolicy) -> dict[str, Any] | None:
        if policy.jwt_rule is None:
            return None
        return request_authentication(
            policy.service_name, policy.namespace, [policy.jwt_rule], selector=policy.pod_labels, labels=_labels(policy)
        )

    def _allowed_calls(self, policy: ServicePolicy) -> dict[str, Any]:
        rules = []
        if policy.allowed_sources:
            source = {
                "principals": principals("allowed_sources", policy.allowed_sources, policy.namespace, self.trust_domain)
            }
            if policy.require_jwt:
                source["requestPrincipals"] = ["*" if policy.jwt_issuer is None else f"{policy.jwt_issuer}/*"]
            rule: dict[str, Any] = {"from": [{"source": source}]}
            if policy.allowed_operations is not None:
                rule["to"] = [{"operation": {"methods": list(policy.allowed_operations)}}]
            rules.append(rule)
        return authorization_policy(
            policy.service_name, policy.namespace, "ALLOW", rules, selector=policy.pod_labels, labels=_labels(policy)
        )

    def _limited_rate(self, policy: ServicePolicy) -> dict[str, Any] | None:
        if policy.rate_limit is None:
            return None
        return local_rate_limit(
            policy.service_name,
            policy.namespace,
            policy.pod_labels,
            policy.rate_limit,
            policy.rate_limit_burst,
            labels=_labels(policy),
        )

    def _dialling(self, policy: ServicePolicy) -> dict[str, Any] | None:
        if policy.connection_pool is None and policy.outlier_detection is None and policy.load_balancer is None:
            return None
        return self.create_traffic_policy(
            policy.service_name,
            policy.namespace,
            policy.host,
            enable_quantum_tls=policy.require_mtls,
            connection_pool=policy.connection_pool,
            outlier_detection=policy.outlier_detection,
            load_balancer=policy.load_balancer,
            labels=_labels(policy),
        )

    def _trying(self, policy: ServicePolicy) -> dict[str, Any] | None:
        if policy.retries is None and policy.timeout is None:
            return None
        route = HttpRoute([Destination(policy.host)], timeout=policy.timeout, retries=policy.retries)
        return virtual_service(policy.service_name, policy.namespace, [policy.host], [route], labels=_labels(policy))

    # One by one

    def create_rate_limit_policy(
        self,
        name: str,
        namespace: str,
        selector: Mapping[str, str],
        requests_per_second: float | Fraction | Decimal,
        burst: int | None = None,
        *,
        port: int | None = None,
    ) -> dict[str, Any]:
        """Return a limit of requests at each selected pod, by a token bucket.

        `burst` is how many tokens the bucket holds (by default those of one second), `requests_per_second` how fast it
        is refilled: 1000 and 2000 let 2000 requests in at once and 1000 per second after that. Each pod has a bucket of
        its own. `port` limits the requests to that port of the workload alone.
        """
        return local_rate_limit(name, namespace, selector, requests_per_second, burst, port=port)

    def create_jwt_authentication(
        self,
        name: str,
        namespace: str,
        issuer: str,
        jwks_uri: str | None = None,
        audiences: Sequence[str] = (),
        *,
        jwks: str | Mapping[str, Any] | None = None,
        selector: Mapping[str, str] | None = None,
        forward_original_token: bool = False,
    ) -> dict[str, Any]:
        """Return whose JSON Web Tokens are believed by the selected pods, or else in the namespace.

        A bad token is refused by it, a missing one is not: to require tokens, add an AuthorizationPolicy whose source
        has requestPrincipals, or set require_jwt of a ServicePolicy. The keys are at `jwks_uri` or are `jwks`, with
        public keys alone; with neither, Istio finds them by OpenID Connect Discovery from `issuer`.
        """
        rule = JwtRule(
            issuer, jwks_uri=jwks_uri, jwks=jwks, audiences=audiences, forward_original_token=forward_original_token
        )
        return request_authentication(name, namespace, [rule], selector=selector)

    def create_traffic_policy(
        self,
        name: str,
        namespace: str,
        host: str,
        *,
        enable_quantum_tls: bool = True,
        connection_pool: ConnectionPool | None = None,
        outlier_detection: OutlierDetection | None = None,
        load_balancer: LoadBalancer | None = None,
        subsets: Mapping[str, Mapping[str, str]] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Return how sidecars dial `host`, everything in one DestinationRule.

        `enable_quantum_tls` writes the mesh's mutual TLS (ISTIO_MUTUAL) and the annotation with the crypto profile;
        without it, the mesh decides by what the server accepts.
        """
        quantum = checks.flag("enable_quantum_tls", enable_quantum_tls)
        return destination_rule(
            name,
            namespace,
            host,
            tls_mode=_MUTUAL if quantum else None,
            profile=self.profile if quantum else None,
            connection_pool=connection_pool,
            outlier_detection=outlier_detection,
            load_balancer=load_balancer,
            subsets=subsets,
            labels=labels,
        )

    def create_circuit_breaker_policy(
        self,
        name: str,
        namespace: str,
        host: str,
        *,
        max_connections: int = 100,
        max_pending_requests: int = 100,
        max_requests: int = 1000,
        consecutive_errors: int = 5,
        interval: str | float = "10s",
        base_ejection_time: str | float = "30s",
        max_ejection_percent: int = 50,
        enable_quantum_tls: bool = True,
    ) -> dict[str, Any]:
        """Return limits for what callers ask of `host` at once, and when an endpoint that fails is left out.

        An endpoint with `consecutive_errors` failures in a row (5xx, or no connection) is left out for
        `base_ejection_time` times the number of times that it was, at most `max_ejection_percent` of the endpoints at
        a time. `max_requests` is for HTTP/2 (and is Envoy's limit for HTTP/1.1 as well).
        """
        return self.create_traffic_policy(
            name,
            namespace,
            host,
            enable_quantum_tls=enable_quantum_tls,
            connection_pool=ConnectionPool(
                max_connections=max_connections, max_pending_requests=max_pending_requests, max_requests=max_requests
            ),
            outlier_detection=_outliers(consecutive_errors, interval, base_ejection_time, max_ejection_percent),
        )

    def create_load_balancing_policy(
        self,
        name: str,
        namespace: str,
        host: str,
        load_balancer: LoadBalancer | str = "LEAST_REQUEST",
        *,
        enable_quantum_tls: bool = True,
    ) -> dict[str, Any]:
        """Return how callers choose among the endpoints of `host`: an algorithm's name, or a LoadBalancer."""
        if not isinstance(load_balancer, LoadBalancer):
            load_balancer = LoadBalancer(checks.choice("load_balancer", load_balancer, ALGORITHMS))
        return self.create_traffic_policy(
            name, namespace, host, enable_quantum_tls=enable_quantum_tls, load_balancer=load_balancer
        )

    def create_retry_policy(
        self,
        name: str,
        namespace: str,
        host: str,
        attempts: int = 3,
        *,
        per_try_timeout: str | float | None = None,
        retry_on: str | Sequence[str] | None = None,
        backoff: str | float | None = None,
        timeout: str | float | None = None,
    ) -> dict[str, Any]:
        """Return how often callers try a request to `host` again (see Retries), and how long it may take in all.

        Without `retry_on` Istio's default holds, which repeats what the server has not begun to answer.
        """
        retries = Retries(attempts, per_try_timeout, retry_on, backoff)
        route = HttpRoute([Destination(host)], timeout=timeout, retries=retries)
        return virtual_service(name, namespace, [host], [route])

    def create_timeout_policy(self, name: str, namespace: str, host: str, timeout: str | float) -> dict[str, Any]:
        """Return how long a request to `host` may take in all, in seconds or as text ("2s", "500ms")."""
        if timeout is None:
            raise checks.refused("timeout", timeout, "seconds, or text as in '2s'")
        return virtual_service(name, namespace, [host], [HttpRoute([Destination(host)], timeout=timeout)])


def _labels(policy: ServicePolicy) -> dict[str, str]:
    """By which everything of one service can be listed, and deleted, together."""
    return {"app.kubernetes.io/managed-by": "qbitel", "qbitel.io/service": policy.service_name}


def _outliers(errors: int, interval: str | float, ejection: str | float, percent: int) -> OutlierDetection:
    checks.whole_number("consecutive_errors", errors, 1, checks.MAX_UINT32)
    return OutlierDetection(
        consecutive_5xx_errors=errors,
        interval=interval,
        base_ejection_time=ejection,
        max_ejection_percent=percent,
    )
