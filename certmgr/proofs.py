"""Who asks for a certificate, and by what it was proven: the words that the API and every verifier share.

Two proofs are judged by the authority itself: an existing certificate (the TLS handshake has verified it) and a
bootstrap token of its own. The third, a service account's token, is somebody else's to judge; TokenVerifier is the
seam.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, Protocol

from mesh.spiffe import SpiffeId

# A projected service-account token has some 1.2 kB; Kubernetes' own limit on a header's line is 16 KiB.
MAX_TOKEN_SIZE: Final = 16 * 1024


class Method(enum.Enum):
    """What kind of proof it was; the value stands in metrics and in the audit log."""

    TOKEN = "token"  # noqa: S105  # a kind of proof, not one
    CERTIFICATE = "certificate"
    BOOTSTRAP = "bootstrap"


class Reason(enum.Enum):
    """Why a request is refused: a closed set, the label of metrics and the `error` of the API's answers.

    Each has the HTTP status that the answer gets: 4xx is the asker's to mend, 5xx ours.
    """

    NO_PROOF = ("no_proof", 401)
    TOKEN_MALFORMED = ("token_malformed", 401)
    TOKEN_EXPIRED = ("token_expired", 401)
    TOKEN_AUDIENCE = ("token_audience", 401)
    TOKEN_REFUSED = ("token_refused", 401)
    BOOTSTRAP_REFUSED = ("bootstrap_refused", 401)
    REVOKED = ("revoked", 403)
    BARRED = ("barred", 403)
    NOT_ENTITLED = ("not_entitled", 403)
    RESERVED_IDENTITY = ("reserved_identity", 403)
    FOREIGN_TRUST_DOMAIN = ("foreign_trust_domain", 403)
    BAD_REQUEST = ("bad_request", 400)
    CSR_MALFORMED = ("csr_malformed", 400)
    CSR_SIGNATURE = ("csr_signature", 400)
    CSR_KEY = ("csr_key", 400)
    CLOCK_SKEW = ("clock_skew", 400)
    TOO_LARGE = ("too_large", 413)
    TOO_SLOW = ("too_slow", 408)
    TOO_MANY = ("too_many", 429)
    # Nobody could say: the asker comes again, and is not told that it is at fault.
    VERIFIER_UNAVAILABLE = ("verifier_unavailable", 503)
    AUTHORITY_UNAVAILABLE = ("authority_unavailable", 503)

    def __init__(self, slug: str, status: int) -> None:
        self.slug = slug
        self.status = status


class Refused(Exception):
    """A request is not granted. The message is one sentence for who asked: never a secret, never a token.

    `identity` is whom it is about, as far as that is proven; `retry_after` is in seconds, where coming again helps.
    """

    def __init__(
        self, reason: Reason, message: str, *, identity: SpiffeId | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.identity = identity
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenIdentity:
    """Who it is, and what else the proof entitles to.

    `dns_names` go into the certificate beside the identity. `instance` tells two holders of one identity apart (a pod's
    UID, where the verifier knows it; else empty): for naming a peer, not for authority.
    """

    spiffe_id: SpiffeId
    method: Method
    dns_names: tuple[str, ...] = ()
    instance: str = ""


class TokenVerifier(Protocol):
    """Judges the bearer tokens that are not the authority's own."""

    async def identify(self, token: str) -> ProvenIdentity:
        """Return whom `token` (1 to MAX_TOKEN_SIZE printable ASCII characters) proves, with Method.TOKEN.

        Raises Refused: TOKEN_MALFORMED, TOKEN_EXPIRED, TOKEN_AUDIENCE, TOKEN_REFUSED where the token is at fault, and
        VERIFIER_UNAVAILABLE (with retry_after) where that cannot be found out now. Whatever it keeps is bounded.
        """
        ...


class NoTokens:
    """The verifier where there is no Kubernetes: every such token is refused."""

    async def identify(self, _token: str) -> ProvenIdentity:
        """Raise Refused."""
        raise Refused(
            Reason.TOKEN_REFUSED,
            "this authority takes no service-account tokens: use a bootstrap token of `qbitel ca token`, or a "
            "certificate",
        )
