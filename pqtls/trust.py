"""What we trust: roots, the intermediates that we hold, and what has been revoked."""

from __future__ import annotations

import datetime
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import verification

from pqtls.errors import Alert, CertificateRefused, ConfigurationError
from pqtls.x509_reading import UNREADABLE, load_certificates, path_id, shown

_PEM_CRL_BEGIN: Final = b"-----BEGIN X509 CRL-----"
_PEM_CRL: Final = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)
# How long a list is still used after its nextUpdate. It spans an authority that is down for half a day and is
# repaired the day after; what is revoked stays revoked all the while.
DEFAULT_CRL_GRACE: Final = datetime.timedelta(hours=24)
_FOR_EVER: Final = datetime.datetime.max.replace(tzinfo=datetime.UTC)


class OlderRevocationList(ConfigurationError):
    """A revocation list is older than one of the same authority that we hold: what that revoked might be let in."""


@dataclass(frozen=True, slots=True)
class ListEdition:
    """Which of its lists an authority signed: its CRLNumber (None where it has none), and its thisUpdate.

    `authority` is the SHA-256 of the authority's name and key, `name` its name for people.
    """

    authority: bytes
    name: str
    number: int | None
    this_update: datetime.datetime

    def check_follows(self, held: ListEdition) -> None:
        """Raise OlderRevocationList where this edition came before `held`, one of the same authority."""
        if held.number is not None and (self.number is None or self.number < held.number):
            mine = "no number" if self.number is None else f"the number {self.number}"
            raise OlderRevocationList(
                f"the revocation list of {self.name} has {mine}, but number {held.number} is in use already "
                "(RFC 5280 section 5.2.3); fetch the newest one"
            )
        # Numbers alone say which list is the newer one, but not every tool gives any.
        if held.number is None and self.number is None and self.this_update < held.this_update:
            raise OlderRevocationList(
                f"the revocation list of {self.name} is of {self.this_update:%Y-%m-%dT%H:%M:%SZ}, but one of "
                f"{held.this_update:%Y-%m-%dT%H:%M:%SZ} is in use already; fetch the newest one"
            )


@dataclass(frozen=True, slots=True)
class TrustAnchors:
    """The roots of the mesh. Nothing else is trusted, the machine's own store included.

    `identifier` stands for everything in here, `anchors_identifier` for all but the revocation lists. `revoked` holds
    identifiers of x509_reading.path_id, `editions` the newest list of each authority that has any. After `usable_until`
    a list is too old to be relied on, and every chain is refused. `names` are the DER names of the authorities that we
    hold, for certificate_authorities (RFC 8446 §4.2.4).
    """

    roots: tuple[x509.Certificate, ...]
    intermediates: tuple[x509.Certificate, ...]
    names: tuple[bytes, ...]
    revoked: frozenset[bytes] = field(repr=False)
    editions: tuple[ListEdition, ...] = field(repr=False)
    usable_until: datetime.datetime
    identifier: bytes
    anchors_identifier: bytes
    store: verification.Store = field(repr=False, compare=False)

    @classmethod
    def from_pem(
        cls,
        pem: bytes,
        *,
        intermediates: bytes = b"",
        crls: bytes = b"",
        crl_grace: datetime.timedelta = DEFAULT_CRL_GRACE,
    ) -> TrustAnchors:
        """Read at least one root, and any number of intermediates and of lists that one of these signed.

        Raises ConfigurationError where there is no root, or a list that none of the authorities made.
        """
        roots = load_certificates(pem, "the file of root certificates")
        held = load_certificates(intermediates, "the file of intermediate certificates") if intermediates else []
        blocks = _PEM_CRL.findall(crls)
        if crls.strip() and not blocks:
            raise ConfigurationError("the file of revocation lists holds no PEM list (-----BEGIN X509 CRL-----)")
        if crls.count(_PEM_CRL_BEGIN) != len(blocks):
            raise ConfigurationError("the file of revocation lists is cut short: a list in it has no end")
        signed = [_load_crl(block, [*roots, *held]) for block in blocks]
        lists = [one for one, _ in signed]
        editions = [_edition(one, authority) for one, authority in signed]
        ends = [_end_of_use(one, crl_grace) for one in lists]
        return cls(
            roots=tuple(roots),
            intermediates=tuple(held),
            names=tuple(dict.fromkeys(one.subject.public_bytes() for one in (*roots, *held))),
            # By the authority's own name: the list may spell it in another string type.
            revoked=frozenset(path_id(by.subject, entry.serial_number) for one, by in signed for entry in one),
            editions=tuple(_newest(editions)),
            usable_until=min(ends, default=_FOR_EVER),
            identifier=_identifier(roots, held, lists),
            anchors_identifier=_identifier(roots, held, []),
            store=verification.Store(roots),
        )

    def check_follows(self, held: TrustAnchors) -> None:
        """Raise OlderRevocationList where a list in here came before the one of the same authority in `held`.

        A list that is lost is refused as well, as long as its authority is in here: it would revoke nobody any more.
        """
        known = {one.authority: one for one in self.editions}
        present = {_authority_id(one) for one in (*self.roots, *self.intermediates)}
        for before in held.editions:
            edition = known.get(before.authority)
            if edition is not None:
                edition.check_follows(before)
            elif before.authority in present:
                raise OlderRevocationList(
                    f"the revocation list of {before.name} is gone, but its certificate is not; put the list back"
                )

    def check_revocation(self, path_ids: tuple[bytes, ...], identity: str, now: datetime.datetime) -> None:
        """Refuse a path of which a certificate is revoked, and any path when a list is too old (fail closed)."""
        if now > self.usable_until:
            raise CertificateRefused(
                f"the revocation list that we hold went out of use at {self.usable_until:%Y-%m-%dT%H:%M:%SZ}: "
                "fetch a current one",
                Alert.CERTIFICATE_UNKNOWN,
                "stale_crl",
            )
        if not self.revoked.isdisjoint(path_ids):
            raise CertificateRefused(
                f"the certificate of {identity}, or of its issuer, is revoked", Alert.CERTIFICATE_REVOKED, "revoked"
            )


def _end_of_use(crl: x509.CertificateRevocationList, grace: datetime.timedelta) -> datetime.datetime:
    """Until when a list may be relied on; one that does not say when the next comes would be believed for ever."""
    next_update = crl.next_update_utc
    if next_update is None:
        raise ConfigurationError(
            f"the revocation list of {shown(crl.issuer.rfc4514_string())} has no nextUpdate (RFC 5280 section 5.1.2.5)"
        )
    # 99991231235959Z, which stands for "no end", has no room for a grace behind it.
    return next_update + grace if next_update <= _FOR_EVER - grace else _FOR_EVER


def _load_crl(
    pem: bytes, authorities: list[x509.Certificate]
) -> tuple[x509.CertificateRevocationList, x509.Certificate]:
    """Read one list; return it with the authority that signed it."""
    try:
        loaded = x509.load_pem_x509_crl(pem)
        for authority in authorities:
            if authority.subject == loaded.issuer and loaded.is_signature_valid(authority.public_key()):  # type: ignore[arg-type]
                return loaded, authority
    except UNREADABLE as error:
        raise ConfigurationError(f"a revocation list cannot be read: {error}") from None
    raise ConfigurationError(
        f"the revocation list of {loaded.issuer.rfc4514_string()} is signed by none of our authorities"
    )


def _edition(crl: x509.CertificateRevocationList, authority: x509.Certificate) -> ListEdition:
    try:
        number: int | None = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except x509.ExtensionNotFound:
        number = None
    except UNREADABLE as error:
        raise ConfigurationError(f"a revocation list cannot be read: {error}") from None
    name = shown(authority.subject.rfc4514_string())
    return ListEdition(_authority_id(authority), name, number, crl.last_update_utc)


def _newest(editions: list[ListEdition]) -> Iterator[ListEdition]:
    """The newest of each authority: lists with a number before those without, and then by number and time."""
    found: dict[bytes, ListEdition] = {}
    for one in sorted(editions, key=lambda one: (-1 if one.number is None else one.number, one.this_update)):
        found[one.authority] = one
    yield from found.values()


def _authority_id(certificate: x509.Certificate) -> bytes:
    """Stands for who signs lists: the name and the key, whatever certificate says so (RFC 5280 §6.3.3 (f))."""
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(hashlib.sha256(certificate.subject.public_bytes()).digest() + key).digest()


def _identifier(
    roots: list[x509.Certificate],
    intermediates: list[x509.Certificate],
    lists: list[x509.CertificateRevocationList],
) -> bytes:
    digest = hashlib.sha256()
    for label, objects in ((b"roots", roots), (b"intermediates", intermediates), (b"lists", lists)):
        digest.update(label + len(objects).to_bytes(4, "big"))
        for one in objects:
            digest.update(hashlib.sha256(one.public_bytes(Encoding.DER)).digest())
    return digest.digest()
