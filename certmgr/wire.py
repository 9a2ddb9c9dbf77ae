"""The API's JSON in both directions (docs/adr/0012-authority.md): bytes to what is asked, facts to what is answered.

Pure, and strict: whatever two readers could understand differently (a name given twice, NaN, UTF-16) is refused.
Members that are not known are passed over, so that a newer sidecar can talk to an older authority.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from certmgr.parts import Bundle
from certmgr.proofs import Reason, Refused

# As certmgr/peers.py keeps it: a pod's UID has 36 characters, a host's name at most 64.
MAX_INSTANCE: Final = 128
# Clocks that differ by more would see NotBefore, which is five minutes back, in the future.
MAX_SKEW: Final = datetime.timedelta(minutes=5)

# RFC 3339 §5.6. datetime.fromisoformat() takes more than that (week dates, no zone), and what is matched is echoed.
_TIME: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})\Z"
)
_VISIBLE: Final = re.compile(r"[!-~]*\Z")
_ANCHORS: Final = re.compile(r"[0-9a-f]{0,64}\Z")  # SHA-256, or nothing
_JSON_SEPARATORS: Final = (",", ":")


@dataclass(frozen=True, slots=True)
class CertificateAsked:
    """POST /v1/certificates. `csr` and `kem_public_key` are PEM as it came; `time` is RFC 3339 as it came, or ""."""

    csr: bytes = field(repr=False)
    instance: str
    anchors: str
    kem_public_key: bytes | None = field(repr=False)
    time: str


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """POST /v1/acknowledgements."""

    anchors: str
    instance: str


def parse_certificate_request(body: bytes) -> CertificateAsked:
    """Read the body, or raise Refused: BAD_REQUEST. What the CSR holds is judged elsewhere."""
    members = _object(body)
    kem_public_key = _ascii(members, "kem_public_key")
    return CertificateAsked(
        csr=_ascii(members, "csr", required=True),
        instance=_visible(members, "instance", MAX_INSTANCE),
        anchors=_anchors(members),
        kem_public_key=kem_public_key or None,
        time=_time(members),
    )


def parse_acknowledgement(body: bytes) -> Acknowledgement:
    """Read the body, or raise Refused: BAD_REQUEST."""
    members = _object(body)
    anchors = _anchors(members)
    if not anchors:
        raise _bad("the member anchors is missing: give the anchors of the bundle that is trusted now")
    return Acknowledgement(anchors=anchors, instance=_visible(members, "instance", MAX_INSTANCE))


def check_clock(asked: CertificateAsked, now: datetime.datetime) -> None:
    """Raise Refused: CLOCK_SKEW where the asker's clock and ours are more than MAX_SKEW apart."""
    if not asked.time:
        return
    theirs = datetime.datetime.fromisoformat(asked.time.upper())
    if abs(now - theirs) > MAX_SKEW:
        raise Refused(
            Reason.CLOCK_SKEW,
            f"your clock says {asked.time} and ours {timestamp(now)}: more than "
            f"{MAX_SKEW // datetime.timedelta(minutes=1)} minutes apart; set the one that is wrong",
        )


def timestamp(moment: datetime.datetime) -> str:
    """`moment` (aware) in RFC 3339, UTC, whole seconds."""
    return moment.astimezone(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def encode(members: dict[str, Any]) -> bytes:
    """An answer's body. What is None is left out."""
    present = {name: value for name, value in members.items() if value is not None}
    return json.dumps(present, separators=_JSON_SEPARATORS).encode("ascii")


def encode_bundle(bundle: Bundle) -> bytes:
    """The bundle as it stands in answers."""
    return encode(
        {
            "files": {name: content.decode("ascii") for name, content in bundle.files.items()},
            "anchors": bundle.anchors,
            "etag": bundle.etag,
            "generation": bundle.generation,
            "round": bundle.round,
        }
    )


def with_member(encoded: bytes, name: str, value: bytes) -> bytes:
    """The object `encoded`, which is not empty, with one member more, whose value is encoded too."""
    return b"".join((encoded[:-1], b',"', name.encode("ascii"), b'":', value, b"}"))


def refusal(error: str, message: str, now: datetime.datetime, your_time: str = "") -> bytes:
    """The body of every answer that grants nothing."""
    return encode({"error": error, "message": message, "time": timestamp(now), "your_time": your_time or None})


def _object(body: bytes) -> dict[str, Any]:
    try:
        # Decoded here: json.loads would guess UTF-16 and UTF-32 from bytes (RFC 8259 §8.1 has UTF-8 only).
        members = json.loads(body.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
    except Refused:
        raise
    except (ValueError, RecursionError):  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise _bad("the body is not JSON in UTF-8") from None
    if not isinstance(members, dict):
        raise _bad("the body is JSON but not an object")
    return members


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _bad("a member of the JSON object is given twice")
    return members


def _no_constant(name: str) -> None:
    raise _bad(f"{name} is no JSON (RFC 8259)")


def _text(members: dict[str, Any], name: str) -> str:
    """The member's string; "" where it is absent or null."""
    value = members.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _bad(f"the member {name} is no string")
    return value


def _ascii(members: dict[str, Any], name: str, *, required: bool = False) -> bytes:
    text = _text(members, name)
    if required and not text:
        raise _bad(f"the member {name} is missing")
    if not text.isascii():
        raise _bad(f"the member {name} is no PEM: it has characters other than ASCII's")
    return text.encode("ascii")


def _visible(members: dict[str, Any], name: str, most: int) -> str:
    text = _text(members, name)
    if len(text) > most or not _VISIBLE.match(text):
        raise _bad(f"the member {name} is not at most {most} visible ASCII characters")
    return text


def _anchors(members: dict[str, Any]) -> str:
    text = _text(members, "anchors")
    if not _ANCHORS.match(text):
        raise _bad("the member anchors is not at most 64 lower-case hexadecimal digits: give those of a bundle")
    return text


def _time(members: dict[str, Any]) -> str:
    text = _text(members, "time")
    if text and not (_TIME.match(text) and _is_date(text)):
        raise _bad("the member time is not in the form of RFC 3339, 2026-11-25T12:00:00Z")
    return text


def _is_date(text: str) -> bool:
    """Whether there is such a day and hour; a leap second (23:59:60) is none here."""
    try:
        datetime.datetime.fromisoformat(text.upper())
    except ValueError:
        return False
    return True


def _bad(message: str) -> Refused:
    return Refused(Reason.BAD_REQUEST, message)
