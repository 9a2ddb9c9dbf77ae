"""Service accounts that want a certificate in a Secret: what their annotations say.

qbitel.io/certificate-secret: web-tls
qbitel.io/dns-names: web.shop.svc,web.shop.svc.cluster.local     # may be left out
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from certmgr.naming import check_dns_name
from certmgr.profiles import MAX_ALTERNATIVE_NAMES
from certmgr.secrets import check_subdomain
from kube.objects import Object
from mesh.errors import UserError
from mesh.names import ANNOTATION_PREFIX, AUTHORITY_SERVICE, CONTROL_NAMESPACE
from mesh.spiffe import SpiffeId

SECRET_ANNOTATION: Final = f"{ANNOTATION_PREFIX}certificate-secret"
DNS_NAMES_ANNOTATION: Final = f"{ANNOTATION_PREFIX}dns-names"


@dataclass(frozen=True, slots=True)
class Wish:
    """A service account (its `uid` is of this life of it) and the Secret that it wants."""

    namespace: str
    service_account: str
    uid: str
    secret: str
    dns_names: tuple[str, ...]

    def spiffe_id(self, trust_domain: str) -> SpiffeId:
        """Whom the certificate is for."""
        return SpiffeId.for_service_account(self.namespace, self.service_account, trust_domain)


def wish_of(service_account: Object, cluster_domain: str) -> Wish | None:
    """Return what a service account wants, None where that is nothing. Raises UserError for what it may not have."""
    metadata = service_account["metadata"]
    annotations = metadata.get("annotations") or {}
    if SECRET_ANNOTATION not in annotations or metadata.get("deletionTimestamp"):
        return None
    if (metadata["namespace"], metadata["name"]) == (CONTROL_NAMESPACE, AUTHORITY_SERVICE):
        raise UserError(f"the authority's own identity is given to nobody; remove {SECRET_ANNOTATION}")
    try:
        secret = check_subdomain(SECRET_ANNOTATION, annotations[SECRET_ANNOTATION])
    except ValueError as error:
        raise UserError(str(error)) from None
    names = [name.strip() for name in annotations.get(DNS_NAMES_ANNOTATION, "").split(",")]
    return Wish(
        namespace=metadata["namespace"],
        service_account=metadata["name"],
        uid=metadata["uid"],
        secret=secret,
        dns_names=_checked_names([name for name in names if name], metadata["namespace"], cluster_domain),
    )


def _checked_names(names: list[str], namespace: str, cluster_domain: str) -> tuple[str, ...]:
    """Services of the account's own namespace alone: whoever may annotate there speaks for no other."""
    if len(names) > MAX_ALTERNATIVE_NAMES:
        raise UserError(f"{DNS_NAMES_ANNOTATION} has {len(names)} names; give at most {MAX_ALTERNATIVE_NAMES}")
    within = (f".{namespace}.svc", f".{namespace}.svc.{cluster_domain}")
    for name in names:
        check_dns_name(name)
        if not name.endswith(within):
            raise UserError(
                f"{name!r} in {DNS_NAMES_ANNOTATION} is not of its own namespace; give names that end in {within[0]} "
                f"or {within[1]}"
            )
    return tuple(names)
