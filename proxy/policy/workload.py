"""Who we are, as policies see it: the namespace and the service account of our SPIFFE ID, and our labels."""

from __future__ import annotations

from mesh import names
from mesh.errors import UserError
from mesh.selectors import Workload
from mesh.spiffe import InvalidSpiffeId, SpiffeId
from proxy.policy.config import PolicyConfig


def workload_of(identity: str, config: PolicyConfig) -> tuple[Workload, str]:
    """The workload whose identity is `identity`, and its trust domain.

    The identity is proven and what the operator says is not: where they differ UserError says so, as it does where
    neither names a namespace and a service account.
    """
    trust_domain, namespace, account = _parts(identity)
    for flag, given, proven in (
        ("--namespace", config.namespace, namespace),
        ("--service-account", config.service_account, account),
    ):
        if given and proven and given != proven:
            raise UserError(f"{flag} is {given}, but our certificate says {proven} ({identity}); leave the flag out")
    namespace, account = namespace or config.namespace, account or config.service_account
    if not namespace or not account:
        raise UserError(
            f"our identity {identity} does not say which workload we are: policies need --namespace and "
            "--service-account"
        )
    return Workload(namespace, dict(config.labels), account), trust_domain


def _parts(identity: str) -> tuple[str, str | None, str | None]:
    """Trust domain, namespace and service account; the latter two None where the path has another form."""
    try:
        parsed = SpiffeId.parse(identity)
    except InvalidSpiffeId:  # "-": a certificate without an identity
        return names.DEFAULT_TRUST_DOMAIN, None, None
    match parsed.segments:
        case ("ns", namespace, "sa", account):
            return parsed.trust_domain, namespace, account
    return parsed.trust_domain, None, None
