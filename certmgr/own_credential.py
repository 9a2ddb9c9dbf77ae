"""The certificate of the authority's own API: made from memory, renewed in time, never written down. Pure."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509

from certmgr.authority import WorkloadRequest, issue_workload
from certmgr.state import AuthorityState
from mesh import names
from mesh.spiffe import SpiffeId

# It is renewed when so much of its life is over.
_RENEWAL: Final = 0.5


@dataclass(frozen=True, slots=True)
class OwnCredential:
    """Chain and key, PEM, with what says whether they still serve: asked with each connection."""

    issuer: x509.Certificate
    due: datetime.datetime
    chain: bytes
    key: bytes = field(repr=False)

    @classmethod
    def make(cls, state: AuthorityState, now: datetime.datetime) -> OwnCredential:
        """Sign one, by the current generation until that is retired: who has not heard of the next one yet must still
        be able to ask us.
        """
        issuer = state.generations[0].issuer
        service, space = names.AUTHORITY_SERVICE, names.CONTROL_NAMESPACE
        request = WorkloadRequest(
            spiffe_id=SpiffeId.of_authority(state.trust_domain),
            dns_names=(service, f"{service}.{space}", f"{service}.{space}.svc"),
            validity=state.leaf_validity,
        )
        made = issue_workload(request, issuer, now)
        begin, end = made.certificate.not_valid_before_utc, made.certificate.not_valid_after_utc
        chain = made.certificate_pem + issuer.certificate_pem
        return cls(issuer.certificate, begin + (end - begin) * _RENEWAL, chain, made.private_key_pem)

    def serves(self, state: AuthorityState, now: datetime.datetime) -> bool:
        """Whether it need not be made anew yet."""
        return now < self.due and self.issuer == state.generations[0].issuer.certificate
