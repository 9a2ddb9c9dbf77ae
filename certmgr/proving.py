"""Which proof a request comes with, and whom it proves.

An Authorization header is a proof that was chosen; the certificate of the connection is one that is merely there. So
the header is what counts, and a certificate beside it must say the same. A bootstrap token works once: it is not spent
where a certificate could renew itself.
"""

from __future__ import annotations

import asyncio
import datetime
import re
from collections.abc import Callable
from typing import Final, Protocol

from cryptography import x509

from certmgr.limits import PROVING_SECONDS, Gate
from certmgr.proofs import MAX_TOKEN_SIZE, Method, ProvenIdentity, Reason, Refused, TokenVerifier
from certmgr.requests import CheckedRequest
from certmgr.wire import timestamp
from mesh.spiffe import InvalidSpiffeId, SpiffeId

# RFC 9110 §11.6.2: the scheme in any case, one or more spaces, and token68 (§11.2) or what else is visible.
_CREDENTIALS: Final = re.compile(r"([A-Za-z]+) +([!-~]+)\Z")
_METHODS: Final = {"bearer": Method.TOKEN, "bootstrap": Method.BOOTSTRAP}


class Judge(Protocol):
    """What of the authority is asked about a proof."""

    @property
    def trust_domain(self) -> str:
        """Of every identity that it certifies."""
        ...

    async def redeem(self, token: str, check: Callable[[ProvenIdentity], CheckedRequest]) -> ProvenIdentity:
        """Spend a bootstrap token, unless `check` raises."""
        ...

    def is_revoked(self, certificate: x509.Certificate) -> bool:
        """Whether one of our own leaves was revoked."""
        ...


class Presented:
    """The proofs that came with one request: looked at when it comes, judged by `prove()` when it is understood."""

    __slots__ = ("_certificate", "_identity", "_token", "method")

    def __init__(self, authorization: list[str], peer_identity: str, peer_certificate: bytes) -> None:
        """`authorization`: every such header; the peer's as the handshake verified them, "" and b"" where it has none.

        Raises Refused where there is no proof, or none that can be read.
        """
        self._identity = peer_identity
        self._certificate = peer_certificate
        self._token = ""
        if len(authorization) > 1:
            raise Refused(Reason.BAD_REQUEST, "there is more than one Authorization header; send one")
        if authorization:
            self.method, self._token = _parse_authorization(authorization[0])
        elif peer_identity:
            self.method = Method.CERTIFICATE
        else:
            raise Refused(
                Reason.NO_PROOF,
                "prove who you are: with `Authorization: Bearer` and a service-account token, with `Authorization: "
                "Bootstrap` and a token of `qbitel ca token`, or with your certificate in the TLS handshake",
            )
        if self.method is Method.BOOTSTRAP and peer_identity:
            raise Refused(
                Reason.BAD_REQUEST,
                f"this connection shows the certificate of {peer_identity}, and the request a bootstrap token: renew "
                "with the certificate, or come without it to be somebody else",
            )

    @property
    def serial(self) -> str:
        """The serial number of the connection's certificate in lower-case hexadecimal digits; "" where it has none."""
        return f"{x509.load_der_x509_certificate(self._certificate).serial_number:x}" if self._certificate else ""

    async def prove(
        self,
        judge: Judge,
        tokens: TokenVerifier,
        gate: Gate,
        now: Callable[[], datetime.datetime],
        check: Callable[[ProvenIdentity], CheckedRequest],
    ) -> ProvenIdentity:
        """Return who it is. Raises Refused, StoreUnavailable.

        A bootstrap token is spent then, unless `check`, which is asked about no other proof, raises.
        """
        match self.method:
            case Method.TOKEN:
                with gate.pass_through():
                    proven = await _identify(tokens, self._token)
                if self._identity not in ("", str(proven.spiffe_id)):
                    raise Refused(
                        Reason.NOT_ENTITLED,
                        f"the token is of {proven.spiffe_id}, and the certificate of this connection of "
                        f"{self._identity}; show one of them",
                    )
                return proven
            case Method.BOOTSTRAP:
                return await judge.redeem(self._token, check)
            case Method.CERTIFICATE:
                return self.prove_certificate(judge, now())

    def prove_certificate(self, judge: Judge, now: datetime.datetime) -> ProvenIdentity:
        """Return whose certificate the connection showed. The handshake may be a while ago: judge it as of `now`."""
        if self.method is not Method.CERTIFICATE:
            raise Refused(Reason.NO_PROOF, "only a certificate, shown in the TLS handshake, is proof enough for this")
        try:
            spiffe_id = SpiffeId.parse(self._identity)
        except InvalidSpiffeId as error:
            raise Refused(Reason.NOT_ENTITLED, f"the certificate names no SPIFFE identity: {error}") from None
        certificate = x509.load_der_x509_certificate(self._certificate)
        if spiffe_id.trust_domain != judge.trust_domain:
            raise Refused(
                Reason.FOREIGN_TRUST_DOMAIN,
                f"{spiffe_id} is not of the trust domain {judge.trust_domain}, which is ours",
                identity=spiffe_id,
            )
        if judge.is_revoked(certificate):
            raise Refused(Reason.REVOKED, f"the certificate of {spiffe_id} is revoked", identity=spiffe_id)
        if now > certificate.not_valid_after_utc:
            raise Refused(
                Reason.NO_PROOF,
                f"the certificate of this connection ended at {timestamp(certificate.not_valid_after_utc)}; "
                f"our clock says {timestamp(now)}",
                identity=spiffe_id,
            )
        return ProvenIdentity(spiffe_id=spiffe_id, method=Method.CERTIFICATE, dns_names=_dns_names(certificate))


def _parse_authorization(value: str) -> tuple[Method, str]:
    found = _CREDENTIALS.match(value)
    method = _METHODS.get(found[1].lower()) if found else None
    if found is None or method is None:
        raise Refused(Reason.NO_PROOF, "the Authorization header is neither `Bearer TOKEN` nor `Bootstrap TOKEN`")
    token = found[2]
    if len(token) > MAX_TOKEN_SIZE:
        raise Refused(Reason.TOKEN_MALFORMED, f"a token has at most {MAX_TOKEN_SIZE} characters")
    return method, token


async def _identify(tokens: TokenVerifier, token: str) -> ProvenIdentity:
    try:
        async with asyncio.timeout(PROVING_SECONDS):
            return await tokens.identify(token)
    except TimeoutError:
        raise Refused(
            Reason.VERIFIER_UNAVAILABLE,
            f"nobody could say within {PROVING_SECONDS:g} s whose token this is; come again",
            retry_after=int(PROVING_SECONDS),
        ) from None


def _dns_names(certificate: x509.Certificate) -> tuple[str, ...]:
    """The names that the certificate has beside the identity; a leaf of ours always has a subjectAltName."""
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return tuple(names.get_values_for_type(x509.DNSName))
