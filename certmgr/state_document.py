"""The authority's state as one document: JSON, compressed by zlib (RFC 1950). It holds private keys.

Times are seconds since 1970; certificates, keys and lists are PEM, but lists are kept as hexadecimal DER, in which zlib
finds what repeats from entry to entry: base64 hides it.
"""

from __future__ import annotations

import datetime
import json
import zlib
from collections.abc import Iterator
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA87PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from certmgr.authority import CertificateAndKey
from certmgr.naming import check_dns_name
from certmgr.profiles import MAX_ALTERNATIVE_NAMES
from certmgr.state import (
    MAX_ROUND,
    MAX_SERIAL,
    REASONS,
    AuthorityState,
    Barred,
    BootstrapToken,
    Generation,
    Phase,
    Revoked,
    is_list_of,
)
from certmgr.store import MAX_DOCUMENT
from certmgr.x509_files import UNREADABLE, deprecations_ignored
from mesh.errors import UserError
from mesh.spiffe import SpiffeId

# 2 counts the rounds of rotations, binds tokens to keys and knows bars; documents of 1 are read.
_VERSION: Final = 2
# What a document may unfold to. The largest that we write has some 4 MiB; zlib could make a gigabyte of one.
_MAX_UNFOLDED: Final = 8 << 20


def encode_state(state: AuthorityState) -> bytes:
    """Return the document: JSON, compressed by zlib (RFC 1950). It holds private keys.

    UserError where it is larger than any store takes.
    """
    plain = json.dumps(_document(state), sort_keys=True, separators=(",", ":")).encode("ascii")
    document = zlib.compress(plain, 9)
    if len(document) > MAX_DOCUMENT or len(plain) > _MAX_UNFOLDED:
        raise UserError(
            f"the authority's state has {len(document)} bytes ({len(plain)} before they were compressed), and at "
            f"most {MAX_DOCUMENT} ({_MAX_UNFOLDED}) can be kept: let bootstrap tokens and revoked certificates "
            "end, or give tokens fewer names"
        )
    return document


def decode_state(document: bytes) -> AuthorityState:
    """Return what encode_state() was called on. UserError, which tells nothing secret, for any other bytes."""
    try:
        with deprecations_ignored():
            return _state(_Object(json.loads(_unfolded(document)), "the whole"))
    except UserError as error:
        raise UserError(f"the authority's state is damaged ({error}); restore it from a backup") from None
    # RecursionError: JSON that is nested for its own sake.
    except (*UNREADABLE, InvalidSignature, zlib.error, RecursionError):
        raise UserError("the authority's state is damaged and cannot be read; restore it from a backup") from None


def _document(state: AuthorityState) -> dict[str, Any]:
    return {
        "version": _VERSION,
        "trust_domain": state.trust_domain,
        "generations": [
            {
                "root": _pem(one.root),
                "root_key": None if one.root_key is None else _key_pem(one.root_key),
                "intermediates": [
                    {"certificate": _pem(each.certificate), "key": _key_pem(each.private_key)}
                    for each in one.intermediates
                ],
            }
            for one in state.generations
        ],
        "phase": state.phase.value,
        "phase_since": int(state.phase_since.timestamp()),
        "revoked": [
            {
                "serial": f"{one.serial:x}",
                "issuer": one.issuer,
                "at": int(one.at.timestamp()),
                "until": int(one.until.timestamp()),
                "identity": one.identity,
                "reason": one.reason.value,
            }
            for one in state.revoked
        ],
        "tokens": [
            {
                "digest": one.digest,
                "spiffe_id": str(one.spiffe_id),
                "dns_names": list(one.dns_names),
                "until": int(one.until.timestamp()),
                "key": one.key,
            }
            for one in state.tokens
        ],
        "crl_number": state.crl_number,
        "crls": [x509.load_pem_x509_crl(one).public_bytes(Encoding.DER).hex() for one in state.crls],
        "leaf_validity": int(state.leaf_validity.total_seconds()),
        "round": state.round,
        "barred": [
            {"spiffe_id": str(one.spiffe_id), "since": int(one.since.timestamp()), "reason": one.reason.value}
            for one in state.barred
        ],
    }


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode("ascii")


def _key_pem(key: MLDSA87PrivateKey) -> str:
    pem = key.private_bytes(Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return pem.decode("ascii")


def _unfolded(document: bytes) -> bytes:
    if len(document) > MAX_DOCUMENT:
        raise UserError(f"it has more than {MAX_DOCUMENT} bytes")
    unfolding = zlib.decompressobj()
    plain = unfolding.decompress(document, _MAX_UNFOLDED)
    if not unfolding.eof or unfolding.unused_data:
        raise UserError("it is cut short, or too long")
    return plain


class _Object:
    """A JSON object of which each value is taken by its kind; UserError for one of another kind, or left over."""

    def __init__(self, value: object, place: str) -> None:
        if not isinstance(value, dict):
            raise UserError(f"{place} is no object")
        self._values: dict[str, Any] = value
        self._place = place

    def take(self, key: str, kind: type | tuple[type, ...]) -> Any:  # of `kind`, as the caller knows
        """Return the value and forget it."""
        value = self._values.pop(key, _MISSING)
        # A bool is an int to Python, but not to JSON.
        if not isinstance(value, kind) or isinstance(value, bool):
            raise UserError(f"{key!r} of {self._place} is missing or of another kind")
        return value

    def number(self, key: str, most: int) -> int:
        """A whole number from 0 to `most`."""
        value: int = self.take(key, int)
        if not 0 <= value <= most:
            raise UserError(f"{key!r} of {self._place} is out of range")
        return value

    def moment(self, key: str) -> datetime.datetime:
        """A time in UTC."""
        return datetime.datetime.fromtimestamp(self.number(key, _LAST_SECOND), datetime.UTC)

    def hexadecimal(self, key: str, digits: int) -> str:
        """Lower-case digits, exactly so many."""
        value: str = self.take(key, str)
        if len(value) != digits or not set(value) <= _HEX_DIGITS:
            raise UserError(f"{key!r} of {self._place} is not {digits} hexadecimal digits")
        return value

    def digest_or_nothing(self, key: str) -> str:
        """64 such digits, or none."""
        if self._values.get(key) == "":
            return str(self._values.pop(key))
        return self.hexadecimal(key, 64)

    def objects(self, key: str) -> Iterator[_Object]:
        """An array of objects, each of which is used up by who asked for it."""
        for value in self.take(key, list):
            one = _Object(value, f"one of {key!r}")
            yield one
            one.end()

    def end(self) -> None:
        """Raise UserError where something is left: a newer version's, which must not be lost by writing it back."""
        if self._values:
            raise UserError(f"{self._place} has fields that are not of version {_VERSION}")


_MISSING: Final = object()
_LAST_SECOND: Final = 253402300799  # 9999-12-31T23:59:59Z, the last that X.509 can say
_HEX_DIGITS: Final = frozenset("0123456789abcdef")


def _state(document: _Object) -> AuthorityState:
    version = document.number("version", 1 << 31)
    if not 1 <= version <= _VERSION:
        raise UserError(f"it is of another version than {_VERSION}: use the release that wrote it, or a newer one")
    state = AuthorityState(
        trust_domain=document.take("trust_domain", str),
        generations=tuple(map(_generation, document.objects("generations"))),
        phase=Phase(document.take("phase", str)),
        phase_since=document.moment("phase_since"),
        revoked=tuple(map(_revoked, document.objects("revoked"))),
        tokens=tuple(_token(one, version) for one in document.objects("tokens")),
        # RFC 5280 §5.2.3: at most 20 octets; at one a second, 63 bits last for ever.
        crl_number=document.number("crl_number", (1 << 63) - 1),
        crls=tuple(map(_crl, document.take("crls", list))),
        leaf_validity=datetime.timedelta(seconds=document.number("leaf_validity", 1 << 31)),
        round=document.number("round", MAX_ROUND) if version > 1 else 0,
        barred=tuple(map(_barred, document.objects("barred"))) if version > 1 else (),
    )
    document.end()
    if any(one.spiffe_id.trust_domain != state.trust_domain for one in state.tokens):
        raise UserError("one of its bootstrap tokens is for another trust domain")
    if len({one.spiffe_id for one in state.barred}) < len(state.barred):
        raise UserError("an identity is barred twice")
    if len(state.crls) > len(state.authorities):
        raise UserError("there are more revocation lists than authorities")
    for pem in state.crls:
        crl = x509.load_pem_x509_crl(pem)
        if not any(is_list_of(crl, one) for one in state.authorities):
            raise UserError("one of its revocation lists is of none of its authorities")
    return state


def _generation(document: _Object) -> Generation:
    key = document.take("root_key", (str, type(None)))
    return Generation(
        root=_certificate(document.take("root", str)),
        root_key=None if key is None else _key(key),
        intermediates=tuple(
            CertificateAndKey(_certificate(one.take("certificate", str)), _key(one.take("key", str)))
            for one in document.objects("intermediates")
        ),
    )


def _certificate(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())


def _key(pem: str) -> MLDSA87PrivateKey:
    key = serialization.load_pem_private_key(pem.encode(), password=None)
    if not isinstance(key, MLDSA87PrivateKey):
        raise UserError("a private key is not ML-DSA-87")
    return key


def _crl(value: object) -> bytes:
    if not isinstance(value, str):
        raise UserError("a revocation list is no string")
    return x509.load_der_x509_crl(bytes.fromhex(value)).public_bytes(Encoding.PEM)


def _revoked(document: _Object) -> Revoked:
    serial = int(document.take("serial", str), 16)
    if not 1 <= serial <= MAX_SERIAL:
        raise UserError("the serial number of one of 'revoked' is out of range")
    identity = document.take("identity", str)
    if identity:
        SpiffeId.parse(identity)
    return Revoked(
        serial,
        document.hexadecimal("issuer", 16),
        document.moment("at"),
        document.moment("until"),
        identity,
        _reason(document),
    )


def _barred(document: _Object) -> Barred:
    return Barred(SpiffeId.parse(document.take("spiffe_id", str)), document.moment("since"), _reason(document))


def _reason(document: _Object) -> x509.ReasonFlags:
    reason = x509.ReasonFlags(document.take("reason", str))
    if reason not in REASONS:
        raise UserError("the reason of a revocation, or of a bar, is none")
    return reason


def _token(document: _Object, version: int) -> BootstrapToken:
    names = document.take("dns_names", list)
    if len(names) > MAX_ALTERNATIVE_NAMES or not all(isinstance(one, str) for one in names):
        raise UserError("'dns_names' of one of 'tokens' are no names")
    return BootstrapToken(
        digest=document.hexadecimal("digest", 64),
        spiffe_id=SpiffeId.parse(document.take("spiffe_id", str)),
        dns_names=tuple(map(check_dns_name, names)),
        until=document.moment("until"),
        key=document.digest_or_nothing("key") if version > 1 else "",
    )
