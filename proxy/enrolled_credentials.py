"""Who we are and whom we trust, in memory, as the authority gave it; and the roots by which we know the authority.

The folder of roots vouches for the authority alone. Whom our peers may be signed by, the authority says.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from mesh.errors import UserError
from mesh.spiffe import SpiffeId
from pqtls import ClientConfig, Credential, TrustAnchors
from pqtls.errors import ConfigurationError, MisuseError
from pqtls.trust import OlderRevocationList
from proxy import enrolment
from proxy.answers import AuthorityFailed, Failure, Issued, Published
from proxy.config import EnrolmentConfig
from proxy.credential_files import OlderList, check_follows, insisting_on_revocations, read_trust
from proxy.credentials import Bundle, TlsSettings, TrustPem, count_nothing
from proxy.enrolment import KeyRequest
from proxy.identity import IdentityRule
from proxy.reading import signature_of

_log = logging.getLogger("qbitel.proxy")


class EnrolledCredentials:
    """The current Bundle; there is none before the first certificate.

    `trust_domains` (at least one) are those of which the authority, and our own identity, may be.
    """

    def __init__(self, config: EnrolmentConfig, settings: TlsSettings, trust_domains: frozenset[str]) -> None:
        """Read the roots for the first time; raise UserError where that fails."""
        self._files = config.roots
        self._settings = settings
        self._authorities = IdentityRule(
            trust_domains, frozenset(str(SpiffeId.of_authority(domain)) for domain in trust_domains)
        )
        self._own_rule = IdentityRule(trust_domains, frozenset())
        self._seen = signature_of(self._files.paths())
        self._last_failure = ""
        self._roots, self._roots_trust = read_trust(self._files)
        self._files = insisting_on_revocations(self._files)
        self.count_older_list: Callable[[], None] = count_nothing
        self._toward: tuple[TrustPem, TrustAnchors] | None = None
        self._current: Bundle | None = None
        self._published: Published | None = None
        self._anchors = ""

    @property
    def current(self) -> Bundle:
        """What a connection that begins now is made with. Nobody asks before there is a certificate."""
        if self._current is None:
            raise MisuseError("a connection was begun before there is a certificate for it")
        return self._current

    @property
    def credential(self) -> Credential | None:
        """Our certificate and its key; None before the first."""
        return None if self._current is None else self._current.credential

    @property
    def published(self) -> Published | None:
        """What of the authority's publications is in use; None before the first certificate."""
        return self._published

    @property
    def anchors(self) -> str:
        """The name of the roots that every connection is judged by that begins now; "" before the first certificate."""
        return self._anchors

    def take_certificate(self, request: KeyRequest, issued: Issued) -> None:
        """Use this certificate, and what was published with it, for every connection from now on.

        Raises AuthorityFailed where something is wrong with either: then nothing has changed.
        """
        trust = self._trust_in(issued.published)
        credential = enrolment.accept(
            request,
            issued.chain,
            trust,
            profiles=self._settings.profiles,
            now=self._settings.now(),
            rule=self._own_rule,
            present=None if self._current is None else self._current.credential.identity,
        )
        self._use(credential, trust, issued.published)

    def take_published(self, published: Published) -> None:
        """Judge peers by this from now on. Raises AuthorityFailed where that cannot be: then nothing has changed."""
        self._use(self.current.credential, self._trust_in(published), published)

    def is_revoked(self) -> bool:
        """Whether our own certificate is revoked by what was published."""
        bundle = self.current
        return enrolment.is_revoked(bundle.credential, bundle.trust, self._settings.profiles, self._settings.now())

    def toward_authority(self, credential: Credential | None) -> ClientConfig:
        """The TLS configuration for speaking to the authority; `credential` None: as nobody. May raise UserError."""
        self._reread_roots()
        settings = self._settings
        return ClientConfig(
            credential=credential,
            trust=self._trust_in_authority(),
            now=settings.now,
            profiles=settings.profiles,
            provider=settings.provider,
            key_log=settings.key_log,
            accept_identity=self._authorities,
        )

    def _trust_in(self, published: Published) -> TrustAnchors:
        if self._current is not None and published == self._published:
            return self._current.trust
        if self._published is not None and published.round < self._published.round:
            # One of its replicas is behind; who heard us acknowledge the newer roots counts on our keeping them.
            raise AuthorityFailed(
                Failure.INVALID,
                f"what the authority publishes was not taken: it is of round {published.round} of its roots, and round "
                f"{self._published.round} is in use already",
            )
        revoking_before = self._published is not None and bool(self._published.trust.crls.strip())
        trust = enrolment.read_trust(published, revoking_before=revoking_before)
        if self._current is not None:
            try:
                trust.check_follows(self._current.trust)
            except OlderRevocationList as error:
                self.count_older_list()
                raise AuthorityFailed(Failure.INVALID, f"what the authority publishes was not taken: {error}") from None
        return trust

    def _use(self, credential: Credential, trust: TrustAnchors, published: Published) -> None:
        try:
            bundle = Bundle(credential, trust, self._settings)
        except ConfigurationError as error:
            raise AuthorityFailed(
                Failure.INVALID, f"the authority's certificate is not for this profile: {error}"
            ) from None
        self._current, self._published = bundle, published
        self._anchors = enrolment.name_of_roots(trust, published.round)

    def _trust_in_authority(self) -> TrustAnchors:
        """The folder's roots and those that the authority published: whichever of them it has moved on to."""
        pem = self._roots
        if self._published is not None:
            of_authority = self._published.trust
            pem = TrustPem(
                _joined(pem.roots, of_authority.roots),
                _joined(pem.intermediates, of_authority.intermediates),
                of_authority.crls or pem.crls,
            )
        if self._toward is None or self._toward[0] != pem:
            self._toward = (pem, pem.anchors())
        trust = self._toward[1]
        if self._settings.now() <= trust.usable_until:
            return trust
        # A revocation list that went out of use must not keep us from fetching the next one.
        return TrustPem(pem.roots, pem.intermediates).anchors()

    def _reread_roots(self) -> None:
        """Take up what changed in the folder; the last good roots stay where that fails."""
        seen = signature_of(self._files.paths())
        if seen == self._seen:
            return
        try:
            roots, trust = read_trust(self._files)
            check_follows(trust, self._roots_trust, self._files)
            self._files = insisting_on_revocations(self._files)
        except UserError as error:
            if isinstance(error, OlderList):
                self.count_older_list()
            if str(error) != self._last_failure:
                self._last_failure = str(error)
                _log.error("the authority's roots were not reloaded, the last good ones stay in use: %s", error)
            return
        self._roots, self._roots_trust = roots, trust
        self._seen = seen
        self._last_failure = ""


def _joined(*parts: bytes) -> bytes:
    """PEM of several files: the last line of one may have no end."""
    return b"\n".join(part for part in parts if part)
