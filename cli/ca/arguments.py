"""The words of `qbitel ca`'s command line, read one by one; what is wrong with one is one line."""

from __future__ import annotations

import argparse
import datetime
import ipaddress
from typing import Final

from certmgr.authority import IPAddress
from certmgr.naming import check_dns_name
from certmgr.profiles import MAX_ROOT_VALIDITY, MAX_WORKLOAD_VALIDITY
from cli.arguments import positive_int
from mesh.errors import UserError
from mesh.spiffe import InvalidSpiffeId, SpiffeId, check_trust_domain

HOUR: Final = datetime.timedelta(hours=1)
# A year of a root, with the leap day rounded: ten of them are ROOT_VALIDITY to the day.
YEAR: Final = datetime.timedelta(days=365, hours=6)
# RFC 5280 §4.1.2.2: at most 20 octets.
_MAX_SERIAL_BITS: Final = 160


def years(text: str) -> int:
    """A root's life."""
    return _at_most(positive_int(text), whole_years(MAX_ROOT_VALIDITY), "years")


def hours(text: str) -> int:
    """A leaf's life."""
    return _at_most(positive_int(text), MAX_WORKLOAD_VALIDITY // HOUR, "hours")


def days(text: str) -> int:
    """A leaf's life, where it is long."""
    return _at_most(positive_int(text), MAX_WORKLOAD_VALIDITY.days, "days")


def minutes(text: str) -> int:
    """A bootstrap token's life: at most a week, because whoever finds it meanwhile is who it says."""
    return _at_most(positive_int(text), 7 * 24 * 60, "minutes")


def whole_years(validity: datetime.timedelta) -> int:
    """`validity` as `years` reads it."""
    return round(validity / YEAR)


def spiffe_id(text: str) -> SpiffeId:
    """A workload's identity."""
    try:
        return SpiffeId.parse(text)
    except InvalidSpiffeId as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def trust_domain(text: str) -> str:
    """The part of a SPIFFE id that an authority stands for."""
    try:
        return check_trust_domain(text)
    except InvalidSpiffeId as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def dns_name(text: str) -> str:
    """A further name for a certificate."""
    try:
        return check_dns_name(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def ip_address(text: str) -> IPAddress:
    """A further name for a certificate."""
    try:
        parsed = ipaddress.ip_address(text)
    except ValueError:
        parsed = None
    # A zone (fe80::1%eth0) means something on one machine only; a certificate has no place for it.
    if parsed is None or (isinstance(parsed, ipaddress.IPv6Address) and parsed.scope_id is not None):
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is no IP address, such as 10.0.0.7 or fd00::7")
    return parsed


def serial(text: str) -> int:
    """A serial number as `qbitel ca show` and OpenSSL write it: hexadecimal, with or without colons."""
    digits = text.replace(":", "").lower().removeprefix("0x")
    try:
        number = int(digits, 16) if digits.isalnum() and digits.isascii() and len(digits) <= 64 else 0
    except ValueError:
        number = 0
    if not 0 < number < 1 << _MAX_SERIAL_BITS:
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is no serial number: give its hexadecimal digits")
    return number


def moment(text: str) -> datetime.datetime:
    """A time in ISO 8601's form; without a zone it is UTC."""
    try:
        parsed = datetime.datetime.fromisoformat(text)
        zoned = parsed.replace(tzinfo=datetime.UTC) if parsed.tzinfo is None else parsed.astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is no time such as 2030-05-17T12:00:00Z") from None
    return zoned


def _at_most(number: int, limit: int, unit: str) -> int:
    if number > limit:
        raise argparse.ArgumentTypeError(f"at most {limit} {unit}")
    return number
