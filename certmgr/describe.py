"""Certificates, requests, revocation lists and keys as a person reads them, and the same as data.

A description is a list of facts; each has a line for people and keys for programs. Whatever a stranger's file says,
it is shown escaped and of bounded length, and a part that cannot be read does not hide the others. Private keys are
named, never shown. Source for what the fields mean: RFC 5280.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, SignatureAlgorithmOID

from certmgr.wording import ends, rfc3339, safe, shown_time, span
from certmgr.x509_files import UNREADABLE, Found, PrivateKey, PublicKey, deprecations_ignored, key_name
from mesh.spiffe import InvalidSpiffeId, SpiffeId

# Names, entries and extensions that stand in the text; the data has them all.
_MOST_SHOWN: Final = 20
# ML-DSA and ML-KEM public keys as FIPS 204 table 2 and FIPS 203 table 3 have them.
_KEY_BYTES: Final = {
    "ML-DSA-44": 1312,
    "ML-DSA-65": 1952,
    "ML-DSA-87": 2592,
    "ML-KEM-768": 1184,
    "ML-KEM-1024": 1568,
}
_LABEL_WIDTH: Final = 12


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that is said: `label` and `text` for people (none where `label` is empty), `data` for programs."""

    label: str
    text: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Description:
    """What one thing is, in one line, and its facts."""

    title: str
    facts: tuple[Fact, ...]

    @property
    def data(self) -> dict[str, Any]:
        """For programs: JSON's types only. "unreadable" lists what could not be read, where there is such a thing."""
        merged: dict[str, Any] = {}
        for fact in self.facts:
            unreadable = [*merged.get("unreadable", []), *fact.data.get("unreadable", [])]
            merged |= fact.data
            if unreadable:
                merged["unreadable"] = unreadable
        return merged

    @property
    def text(self) -> str:
        """For people: the title, then a line for each fact; no line break at the end."""
        lines = [f"  {fact.label:<{_LABEL_WIDTH}} {fact.text}" for fact in self.facts if fact.label]
        return "\n".join([self.title, *lines])


def describe(found: Found, now: datetime.datetime) -> Description:
    """Describe whatever certmgr/x509_files.py found in a file. `now` is aware."""
    with deprecations_ignored():
        match found.thing:
            case x509.Certificate() as certificate:
                return describe_certificate(certificate, now)
            case x509.CertificateSigningRequest() as request:
                return _described("certificate request", _REQUEST, request, now)
            case x509.CertificateRevocationList() as crl:
                return _described("revocation list", _LIST, crl, now)
            case PrivateKey() as key:
                return _describe_private_key(key)
            case PublicKey() as public:
                data = {"kind": "public key", "key": {"algorithm": public.algorithm}}
                return Description(f"public key, {safe(public.algorithm)}", (Fact("", "", data),))


def describe_certificate(certificate: x509.Certificate, now: datetime.datetime) -> Description:
    """Describe a certificate. `now` is aware."""
    return _described("certificate", _CERTIFICATE, certificate, now)


# What is said of each kind: a label for when it cannot be read, and how to read it.
_Reader = Callable[[Any, datetime.datetime], Iterable[Fact]]
_Section = tuple[str, _Reader]


def _described(kind: str, sections: Sequence[_Section], thing: Any, now: datetime.datetime) -> Description:
    facts = [Fact("", "", {"kind": kind})]
    for label, read in sections:
        try:
            facts.extend(read(thing, now))
        except UNREADABLE as error:
            facts.append(Fact(label, f"cannot be read: {safe(str(error)) or 'damaged'}", {"unreadable": [label]}))
    data = Description("", tuple(facts)).data
    name = data.get("spiffe_id") or data.get("subject") or (data.get("issuer") if kind == "revocation list" else "")
    title = f"{kind}: {safe(name)}" if name else kind
    return Description(title, tuple(facts))


def _subject(thing: Any, _now: datetime.datetime) -> Iterator[Fact]:
    name = thing.subject.rfc4514_string()
    yield Fact("subject", safe(name) or "(empty)", {"subject": name})


def _issuer(thing: Any, _now: datetime.datetime) -> Iterator[Fact]:
    name = thing.issuer.rfc4514_string()
    own = isinstance(thing, x509.Certificate) and thing.issuer == thing.subject
    yield Fact("issuer", f"{safe(name) or '(empty)'}{' (itself: a root)' if own else ''}", {"issuer": name})


def _validity(certificate: x509.Certificate, now: datetime.datetime) -> Iterator[Fact]:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < begin:
        state, text = "not yet valid", f"begins in {span(begin - now)}"
    else:
        state, text = "ended" if now > end else "valid", ends(end, now)
    data = {"not_before": rfc3339(begin), "not_after": rfc3339(end), "state": state}
    left = {"seconds_left": int((end - now).total_seconds())}
    yield Fact("valid", f"{shown_time(begin)[:-4]} to {shown_time(end)}: {text}", data | left)


def _names(thing: Any, _now: datetime.datetime) -> Iterator[Fact]:
    extension = _extension(thing, x509.SubjectAlternativeName)
    if extension is None:
        return
    names = extension.value
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    spiffe = [uri for uri in uris if _is_spiffe_id(uri)]
    identity = spiffe[0] if len(uris) == 1 and spiffe else None
    if identity:
        yield Fact("identity", safe(identity), {"spiffe_id": identity})
    dns = names.get_values_for_type(x509.DNSName)
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    others = [
        repr(name.value)
        for name in names
        if not isinstance(name, x509.UniformResourceIdentifier | x509.DNSName | x509.IPAddress)
    ]
    words = [
        *(f"DNS {name}" for name in dns),
        *(f"IP {address}" for address in addresses),
        *(f"URI {uri}" for uri in uris if uri != identity),
        *(f"other {name}" for name in others),
    ]
    data = {"dns_names": dns, "ip_addresses": addresses, "uris": uris, "other_names": others}
    yield Fact("names" if words else "", _listed(words), data)


def _is_spiffe_id(uri: str) -> bool:
    try:
        SpiffeId.parse(uri)
    except InvalidSpiffeId:
        return False
    return True


def _key(thing: Any, _now: datetime.datetime) -> Iterator[Fact]:
    key = thing.public_key()
    name, bits = key_name(key), getattr(key, "key_size", None)
    size = f", {_KEY_BYTES[name]} bytes" if name in _KEY_BYTES else f", {bits} bits" if bits else ""
    yield Fact("key", f"{name}{size}", {"key": {"algorithm": name, "bits": bits, "bytes": _KEY_BYTES.get(name)}})


def _signature(thing: Any, _now: datetime.datetime) -> Iterator[Fact]:
    oid = thing.signature_algorithm_oid
    name = _SIGNATURES.get(oid, oid.dotted_string)
    yield Fact("signature", f"{name}, {len(thing.signature)} bytes", {"signature_algorithm": name})


def _uses(thing: Any, _now: datetime.datetime) -> Iterator[Fact]:
    usage = _extension(thing, x509.KeyUsage)
    purposes = _extension(thing, x509.ExtendedKeyUsage)
    words = [name for attribute, name in _USAGES.items() if usage and getattr(usage.value, attribute)]
    # The two of KeyAgreement that have no meaning without it, and may not even be asked for.
    if usage and usage.value.key_agreement:
        words += [name for name in ("encipherOnly", "decipherOnly") if getattr(usage.value, _snake(name))]
    roles = [_PURPOSES.get(oid, oid.dotted_string) for oid in purposes.value] if purposes else []
    text = "; ".join(part for part in (_listed(words), _listed(roles)) if part)
    data = {"key_usage": words if usage else None, "extended_key_usage": roles if purposes else None}
    yield Fact("usages", text or "not limited", data)


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def _authority(thing: Any, _now: datetime.datetime) -> Iterator[Fact]:
    extension = _extension(thing, x509.BasicConstraints)
    if extension is None or not extension.value.ca:
        yield Fact("", "", {"authority": False})
        return
    length = extension.value.path_length
    below = {None: "any number of authorities below it", 0: "signs leaves only", 1: "one tier of authorities below it"}
    text = below.get(length, f"{length} tiers of authorities below it")
    yield Fact("authority", f"yes, {text}", {"authority": True, "path_length": length})


def _serial(certificate: x509.Certificate, _now: datetime.datetime) -> Iterator[Fact]:
    serial = f"{certificate.serial_number:x}"
    yield Fact("serial", serial, {"serial": serial})


def _key_identifiers(thing: Any, _now: datetime.datetime) -> Iterator[Fact]:
    own, above = _extension(thing, x509.SubjectKeyIdentifier), _extension(thing, x509.AuthorityKeyIdentifier)
    own_id = own.value.digest.hex() if own else None
    above_id = above.value.key_identifier.hex() if above and above.value.key_identifier is not None else None
    if not isinstance(thing, x509.CertificateRevocationList):
        yield Fact("key id" if own_id else "", own_id or "", {"subject_key_id": own_id})
    yield Fact("issuer's key" if above_id else "", above_id or "", {"authority_key_id": above_id})


def _extensions(thing: Any, _now: datetime.datetime) -> Iterator[Fact]:
    others = [
        {
            "oid": one.oid.dotted_string,
            "name": _EXTENSIONS.get(one.oid, one.oid.dotted_string),
            "critical": one.critical,
        }
        for one in thing.extensions
        if one.oid not in _TOLD_ELSEWHERE
    ]
    words = [f"{one['name']}{' (critical)' if one['critical'] else ''}" for one in others]
    yield Fact("extensions" if words else "", _listed(words), {"other_extensions": others})


def _proof_of_possession(request: x509.CertificateSigningRequest, _now: datetime.datetime) -> Iterator[Fact]:
    valid = request.is_signature_valid
    text = "by the key in it" if valid else "NOT by the key in it: whoever made it may not hold the key"
    yield Fact("signed", text, {"signature_valid": valid})


def _fingerprint(thing: Any, _now: datetime.datetime) -> Iterator[Fact]:
    if isinstance(thing, x509.CertificateSigningRequest):
        digest = hashes.Hash(hashes.SHA256())
        digest.update(thing.public_bytes(serialization.Encoding.DER))
        fingerprint = digest.finalize().hex()
    else:
        fingerprint = thing.fingerprint(hashes.SHA256()).hex()
    yield Fact("SHA-256", fingerprint, {"sha256": fingerprint})


def _size(thing: Any, _now: datetime.datetime) -> Iterator[Fact]:
    size = len(thing.public_bytes(serialization.Encoding.DER))
    yield Fact("size", f"{size} bytes of DER", {"bytes": size})


def _updates(crl: x509.CertificateRevocationList, now: datetime.datetime) -> Iterator[Fact]:
    made, following = crl.last_update_utc, crl.next_update_utc
    yield Fact("made", f"{shown_time(made)}, {span(now - made)} ago", {"this_update": rfc3339(made)})
    if following is None:
        yield Fact("next", "it does not say when", {"next_update": None, "state": "without end"})
        return
    late = now > following
    text = f"due {span(now - following)} ago" if late else f"due in {span(following - now)}"
    data = {"next_update": rfc3339(following), "state": "late" if late else "valid"}
    yield Fact("next", f"{shown_time(following)}: {text}", data)


def _number(crl: x509.CertificateRevocationList, _now: datetime.datetime) -> Iterator[Fact]:
    extension = _extension(crl, x509.CRLNumber)
    number = extension.value.crl_number if extension else None
    yield Fact("number" if extension else "", str(number), {"number": number})


def _entries(crl: x509.CertificateRevocationList, _now: datetime.datetime) -> Iterator[Fact]:
    entries = [_entry(one) for one in crl]
    words = [f"{one['serial']} ({one['revoked_at']}, {one['reason']})" for one in entries[:_MOST_SHOWN]]
    text = f"{len(entries)} certificate{'' if len(entries) == 1 else 's'}" if entries else "nothing"
    yield Fact("revoked", text, {"revoked": entries})
    for word in words:
        yield Fact(" ", word, {})
    if len(entries) > _MOST_SHOWN:
        yield Fact(" ", f"… and {len(entries) - _MOST_SHOWN} more (--json has them all)", {})


def _entry(revoked: x509.RevokedCertificate) -> dict[str, str]:
    try:
        reason = revoked.extensions.get_extension_for_class(x509.CRLReason).value.reason.value
    except x509.ExtensionNotFound:
        reason = "no reason given"
    except UNREADABLE:
        reason = "a reason that cannot be read"
    at = revoked.revocation_date_utc
    return {"serial": f"{revoked.serial_number:x}", "revoked_at": rfc3339(at), "reason": reason}


def _describe_private_key(key: PrivateKey) -> Description:
    data = {"kind": "private key", "key": {"algorithm": key.algorithm}, "encrypted": key.encrypted}
    if key.encrypted:
        title = "private key, encrypted (not shown)"
    elif key.algorithm in ("unknown", "unreadable"):
        title = "private key, of a kind or in a form that is not read here (not shown)"
    else:
        title = f"private key, {safe(key.algorithm)} (not shown: keep it secret)"
    return Description(title, (Fact("", "", data),))


def _extension(thing: Any, kind: type[x509.ExtensionType]) -> Any:
    """The extension of this kind, or None; one of UNREADABLE where the extensions are broken."""
    try:
        return thing.extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None


def _listed(words: Sequence[str]) -> str:
    shown = [safe(word) for word in words[:_MOST_SHOWN]]
    more = [f"… and {len(words) - _MOST_SHOWN} more"] if len(words) > _MOST_SHOWN else []
    return ", ".join([*shown, *more])


def _by_oid(names: type, separator: str) -> dict[x509.ObjectIdentifier, str]:
    """The names that `cryptography` gives object identifiers, turned round."""
    found = {
        oid: name for name, oid in vars(names).items() if isinstance(oid, x509.ObjectIdentifier) and name[0] != "_"
    }
    return {oid: name.replace("_", separator) for oid, name in found.items()}


_SIGNATURES: Final = _by_oid(SignatureAlgorithmOID, "-")
_EXTENSIONS: Final = {oid: name.lower() for oid, name in _by_oid(ExtensionOID, " ").items()}
_PURPOSES: Final = {oid: name.lower() for oid, name in _by_oid(ExtendedKeyUsageOID, " ").items()} | {
    ExtendedKeyUsageOID.SERVER_AUTH: "TLS server",
    ExtendedKeyUsageOID.CLIENT_AUTH: "TLS client",
}
# RFC 5280 §4.2.1.3.
_USAGES: Final = {
    "digital_signature": "digitalSignature",
    "content_commitment": "nonRepudiation",
    "key_encipherment": "keyEncipherment",
    "data_encipherment": "dataEncipherment",
    "key_agreement": "keyAgreement",
    "key_cert_sign": "keyCertSign",
    "crl_sign": "cRLSign",
}
_TOLD_ELSEWHERE: Final = frozenset(
    {
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
        ExtensionOID.CRL_NUMBER,
    }
)

_CERTIFICATE: Final[tuple[_Section, ...]] = (
    ("subject", _subject),
    ("names", _names),
    ("issuer", _issuer),
    ("valid", _validity),
    ("key", _key),
    ("usages", _uses),
    ("authority", _authority),
    ("signature", _signature),
    ("extensions", _extensions),
    ("serial", _serial),
    ("key id", _key_identifiers),
    ("SHA-256", _fingerprint),
    ("size", _size),
)
_REQUEST: Final[tuple[_Section, ...]] = (
    ("subject", _subject),
    ("names", _names),
    ("key", _key),
    ("usages", _uses),
    ("authority", _authority),
    ("signature", _signature),
    ("signed", _proof_of_possession),
    ("extensions", _extensions),
    ("SHA-256", _fingerprint),
    ("size", _size),
)
_LIST: Final[tuple[_Section, ...]] = (
    ("issuer", _issuer),
    ("made", _updates),
    ("number", _number),
    ("revoked", _entries),
    ("signature", _signature),
    ("extensions", _extensions),
    ("issuer's key", _key_identifiers),
    ("SHA-256", _fingerprint),
    ("size", _size),
)
