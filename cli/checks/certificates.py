"""Certificates and revocation lists as checks look at them: whose they are, whom they name, how long they last."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from certmgr.describe import describe
from certmgr.x509_files import find
from cli.checks.facts import moment
from cli.checks.findings import Unknown
from mesh.errors import UserError

_Data = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Seen:
    """One certificate (or revocation list, whose end is when the next one is due) of a text."""

    kind: str
    subject: str
    begins: datetime.datetime
    ends: datetime.datetime
    dns_names: tuple[str, ...] = ()
    sha256: str = ""


def seen(text: bytes, what: str, now: datetime.datetime) -> Sequence[Seen]:
    """Everything in a PEM text, at least one. Raises Unknown, with `what` it is, where it cannot be read."""
    try:
        found = [dict(describe(one, now).data) for one in find(text)]
    except UserError as error:
        raise Unknown(f"{what} cannot be read: {error}") from None
    return [_of(data, what) for data in found]


def _of(data: _Data, what: str) -> Seen:
    begins = moment(data.get("not_before") or data.get("this_update"))
    ends = moment(data.get("not_after") or data.get("next_update"))
    if begins is None or ends is None:
        raise Unknown(f"{what} holds a {data.get('kind')} whose times cannot be read")
    return Seen(
        kind=str(data["kind"]),
        subject=str(data.get("subject") or ""),
        begins=begins,
        ends=ends,
        dns_names=tuple(data.get("dns_names") or ()),
        sha256=str(data.get("sha256") or ""),
    )
