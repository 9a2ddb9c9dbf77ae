"""ServicePolicy: what a service asks of its callers and of the way to it, as one value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction

from control.sources import principals
from mesh.building import checks
from mesh.building.durations import duration
from mesh.building.local_rate_limit import checked_rate, token_bucket
from mesh.building.request_authentication import JwtRule
from mesh.building.traffic_policy import ConnectionPool, LoadBalancer, OutlierDetection
from mesh.building.virtual_service import Retries
from mesh.names import DEFAULT_TRUST_DOMAIN
from mesh.traffic import CLUSTER_DOMAIN


@dataclass(frozen=True, slots=True)
class ServicePolicy:
    """What holds for one service. Raises ValueError, which names the field, for what cannot work.

    `service_name` is the Service's name, and the value of the label `app` of its pods unless `selector` gives their
    labels.

    `allowed_sources` are the service accounts that may call: "web" (of this namespace), "shop/web", a whole principal
    ("cluster.local/ns/shop/sa/web"), or "*" alone for whoever has an identity in the mesh. Nobody may call where it is
    empty. They are matched by identity, so that a caller in plaintext is nobody, whatever `require_mtls` says.

    `allowed_operations` are the HTTP methods that may be used; every one where it is None.

    `require_mtls` makes the workload itself STRICT, whatever the namespace is. False leaves it to the namespace.

    `require_jwt` asks for a request with a verified token as well. The issuer of tokens is given by `jwt_issuer`, with
    `jwt_jwks_uri` and `jwt_audiences`; without it, a RequestAuthentication (create_jwt_authentication) must cover the
    workload in another way, or else no token is ever verified and every request is denied. With `jwt_issuer`, tokens
    of that issuer alone count.

    `rate_limit` is the number of requests per second that each pod lets in, whatever their method; `rate_limit_burst`
    as many as may come at once, by default those of one second.

    Methods and tokens are parts of requests. Where a sidecar decides about connections and does not read requests, as
    ours do for TCP, a policy with `allowed_operations` or `require_jwt` lets nothing in: it cannot be kept there.

    `connection_pool` and `outlier_detection` (circuit breaking), `load_balancer`, `retries` and `timeout` (seconds or
    text as in "2s") are about how callers' sidecars dial the service.
    """

    service_name: str
    namespace: str = "default"
    allowed_sources: Sequence[str] = ()
    allowed_operations: Sequence[str] | None = None
    require_mtls: bool = True
    require_jwt: bool = False
    rate_limit: float | Fraction | Decimal | None = None
    rate_limit_burst: int | None = field(default=None, kw_only=True)
    jwt_issuer: str | None = field(default=None, kw_only=True)
    jwt_jwks_uri: str | None = field(default=None, kw_only=True)
    jwt_audiences: Sequence[str] = field(default=(), kw_only=True)
    connection_pool: ConnectionPool | None = field(default=None, kw_only=True)
    outlier_detection: OutlierDetection | None = field(default=None, kw_only=True)
    load_balancer: LoadBalancer | None = field(default=None, kw_only=True)
    retries: Retries | None = field(default=None, kw_only=True)
    timeout: str | float | None = field(default=None, kw_only=True)
    selector: Mapping[str, str] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        checks.label_name("service_name", self.service_name)
        checks.label_name("namespace", self.namespace)
        # The trust domain is the manager's matter; here any one shows whether the names are names.
        principals("allowed_sources", self.allowed_sources, self.namespace, DEFAULT_TRUST_DOMAIN)
        self._set("allowed_sources", tuple(self.allowed_sources))
        if self.allowed_operations is not None:
            methods = checks.several("allowed_operations", self.allowed_operations, checks.method, fewest=1)
            self._set("allowed_operations", tuple(methods))
        checks.flag("require_mtls", self.require_mtls)
        checks.flag("require_jwt", self.require_jwt)
        self._check_limit()
        self._check_tokens()
        self._check_traffic()
        if self.selector is not None:
            self._set("selector", checks.label_set("selector", self.selector, fewest=1))

    @property
    def pod_labels(self) -> dict[str, str]:
        """The labels by which the service's pods are found."""
        return {"app": self.service_name} if self.selector is None else dict(self.selector)

    @property
    def host(self) -> str:
        """The full name by which callers' sidecars know the service."""
        return f"{self.service_name}.{self.namespace}.svc.{CLUSTER_DOMAIN}"

    @property
    def jwt_rule(self) -> JwtRule | None:
        """Whose tokens are believed, where the policy says it."""
        if self.jwt_issuer is None:
            return None
        return JwtRule(self.jwt_issuer, jwks_uri=self.jwt_jwks_uri, audiences=self.jwt_audiences)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check_limit(self) -> None:
        if self.rate_limit is None:
            if self.rate_limit_burst is not None:
                raise ValueError("rate_limit_burst: there is no limit that it could belong to; give rate_limit too")
            return
        rate = checked_rate("rate_limit", self.rate_limit)
        if self.rate_limit_burst is not None:
            burst = checks.whole_number("rate_limit_burst", self.rate_limit_burst, 1, checks.MAX_UINT32)
            try:
                token_bucket(rate, burst)
            except ValueError as error:
                raise ValueError(f"rate_limit_{error}") from None

    def _check_tokens(self) -> None:
        for name, value in (("jwt_jwks_uri", self.jwt_jwks_uri), ("jwt_audiences", self.jwt_audiences or None)):
            if value is not None and self.jwt_issuer is None:
                raise ValueError(f"{name}: there is no issuer that it could belong to; give jwt_issuer too")
        if self.jwt_issuer is not None and not self.require_jwt:
            raise ValueError(
                "jwt_issuer: tokens are not required, so that leaving them out would pass; set require_jwt"
            )
        if self.jwt_issuer is not None and "*" in checks.text("jwt_issuer", self.jwt_issuer):
            raise checks.refused("jwt_issuer", self.jwt_issuer, "one issuer, without *")
        try:
            rule = self.jwt_rule
        except ValueError as error:
            raise ValueError(f"jwt_{error}") from None
        self._set("jwt_audiences", tuple(rule.audiences) if rule else ())

    def _check_traffic(self) -> None:
        for name, value, kind in (
            ("connection_pool", self.connection_pool, ConnectionPool),
            ("outlier_detection", self.outlier_detection, OutlierDetection),
            ("load_balancer", self.load_balancer, LoadBalancer),
            ("retries", self.retries, Retries),
        ):
            if value is not None and not isinstance(value, kind):
                raise checks.refused(name, value, f"a {kind.__name__}")
        if self.timeout is not None:
            duration("timeout", self.timeout)
