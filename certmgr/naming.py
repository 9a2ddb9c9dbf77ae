"""What certificates may be called: the names of authorities and workloads, checked before they are signed."""

from __future__ import annotations

import re
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA87PublicKey
from cryptography.x509.oid import NameOID

from certmgr.profiles import MAX_COMMON_NAME, key_identifier
from mesh.errors import UserError

# RFC 1034 §3.1 and §3.5 with RFC 1123 §2.1: at most 253 characters in all; each label 1 to 63 letters, digits
# and inner dashes.
_MAX_DNS_NAME: Final = 253
_DNS_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\Z")
# Hexadecimal digits of a key's identifier in an authority's name: 32 bits, as authorities are few.
_NAME_MARK: Final = 8


def parse_subject(text: str) -> x509.Name:
    """The name of an authority in RFC 4514's form, `CN=…,O=…`. UserError where it is none, or empty."""
    try:
        name = x509.Name.from_rfc4514_string(text)
    except ValueError as error:
        raise no_subject(text, error) from None
    if not name.rdns:
        raise UserError("a root needs a name (RFC 5280 §4.1.2.4): give a subject like 'CN=Example root,O=Example'")
    return name


def no_subject(text: str, error: ValueError) -> UserError:
    """What to raise of a subject that cannot be parsed, or cannot be encoded."""
    detail = f" ({error})" if str(error) and str(error).isprintable() else ""
    return UserError(f"{text[:80]!r} is no subject like 'CN=Example root,O=Example'{detail}")


def distinct_name(name: x509.Name, public_key: MLDSA87PublicKey) -> x509.Name:
    """`name` with the first 8 hexadecimal digits of the key's identifier at the end of its common name.

    Peers look authorities up by name, so no two may have the same. A common name is shortened where the mark would not
    fit (RFC 5280 allows 64 characters); a name that has the mark already stays as it is.
    """
    mark = key_identifier(public_key).digest[: _NAME_MARK // 2].hex()
    common_names = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    text = str(common_names[-1].value) if common_names else ""
    if text == mark or text.endswith(f" {mark}"):
        return name
    room = MAX_COMMON_NAME - len(mark) - 1
    marked = f"{text.encode()[:room].decode(errors='ignore').rstrip()} {mark}".lstrip()
    attribute = x509.NameAttribute(NameOID.COMMON_NAME, marked)
    if not common_names:
        return x509.Name([*name, attribute])
    return x509.Name(
        x509.RelativeDistinguishedName(attribute if one == common_names[-1] else one for one in rdn)
        for rdn in name.rdns
    )


def check_common_name(text: str) -> str:
    """Return `text`, or raise UserError where it is no common name of a leaf; "" is none, and allowed."""
    if not _encodes_within(text, MAX_COMMON_NAME):
        raise UserError(f"{text[:80]!r} is no common name; give at most {MAX_COMMON_NAME} bytes of UTF-8")
    return text


def common_name(text: str) -> x509.Name:
    """The subject of a leaf: the common name alone, or nothing."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)] if text else [])


def check_dns_name(name: str) -> str:
    """Return `name`, or raise UserError where it is no DNS name for a certificate.

    Wildcards are refused: a workload is one party, and a pattern would let it answer for its neighbours. A
    name with other letters than ASCII is given in its A-label form (RFC 5280 §7.2).
    """
    labels = name.split(".")
    if len(name) > _MAX_DNS_NAME or not all(map(_DNS_LABEL.match, labels)):
        raise UserError(
            f"{name[:80]!r} is no DNS name: labels of letters, digits and inner dashes, joined by dots, "
            f"at most {_MAX_DNS_NAME} characters, no wildcard"
        )
    if labels[-1].isdigit():
        raise UserError(f"{name[:80]!r} is no DNS name but looks like an IP address; give it as one")
    return name


def _encodes_within(text: str, limit: int) -> bool:
    try:
        return len(text.encode()) <= limit
    except UnicodeEncodeError:  # a lone surrogate: an argument that was no UTF-8
        return False
