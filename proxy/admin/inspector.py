"""What one worker knows of itself, as JSON: its live connections, tunnels, certificates, memory; and its log's level.

Certificates are shown, keys never: nothing here reads one.
"""

from __future__ import annotations

import asyncio
import datetime
import gc
import hashlib
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from pqtls import TrustAnchors
from pqtls.errors import MisuseError
from pqtls.x509_reading import display_name, parse_certificate, uris
from proxy.credentials import CredentialSource
from proxy.life import Stop
from proxy.registry import Registry

# A page of a table, unless asked for less or more, and the most: some 5 MB, which take a tenth of a second to make.
PAGE: Final = 1000
MAX_PAGE: Final = 10_000
LEVELS: Final = ("debug", "info", "warning", "error")

Parameters = Mapping[str, str]
# What is asked of a worker. Raises Refusal.
Question = Callable[[Parameters], Any]


class Refusal(Exception):
    """A question is not answered as it was asked. The message is one line for whoever asked."""


class Inspector:
    """Answers for one worker. Who has more to show adds it to `sections`, each under its name in /config_dump."""

    def __init__(
        self,
        registry: Registry,
        credentials: CredentialSource,
        now: Callable[[], datetime.datetime],
        obstacle: Callable[[], str],
        stop: Stop,
    ) -> None:
        self._registry = registry
        self._credentials = credentials
        self._now = now
        self._obstacle = obstacle
        self._stop = stop
        self.sections: dict[str, Callable[[], Any]] = {}
        self._questions: dict[str, Question] = {
            "connections": lambda parameters: self._table(parameters, tunnels=False),
            "tunnels": lambda parameters: self._table(parameters, tunnels=True),
            "certs": self._certificates,
            "memory": self._memory,
            "state": self._state,
            "config_dump": self._sections,
            "logging": set_level,
            "drain": self._drain,
            "quitquitquit": self._end,
        }

    def answer(self, question: str, parameters: Parameters) -> Any:
        """The answer, or {"refused": why}."""
        try:
            return self._questions[question](parameters)
        except Refusal as refusal:
            return {"refused": str(refusal)}

    # -- reading ------------------------------------------------------------------------------------------------

    def _table(self, parameters: Parameters, *, tunnels: bool) -> dict[str, Any]:
        now = asyncio.get_running_loop().time()
        offset, limit = page_of(parameters)
        return {
            "total": self._registry.count(tunnels=tunnels),
            "rows": [one.describe(now) for one in self._registry.page(0, offset + limit, tunnels=tunnels)],
        }

    def _sections(self, _parameters: Parameters) -> dict[str, Any]:
        return {"pid": os.getpid(), **{name: section() for name, section in self.sections.items()}}

    def _state(self, _parameters: Parameters) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "not_ready": self._obstacle(),
            "draining": self._stop.draining.is_set(),
            "connections": self._registry.count(tunnels=False),
            "tunnels": self._registry.count(tunnels=True),
        }

    def _certificates(self, _parameters: Parameters) -> dict[str, Any]:
        try:
            bundle = self._credentials.current
        except MisuseError:
            return {"pid": os.getpid(), "chain": []}
        now = self._now()
        return {
            "pid": os.getpid(),
            "identity": bundle.identity,
            "chain": [_shown(parse_certificate(der), der, now) for der in bundle.credential.chain],
            **_trust(bundle.trust, now),
        }

    def _memory(self, _parameters: Parameters) -> dict[str, Any]:
        # Each number as the kernel gives it, in kB; where /proc is hidden, there are fewer.
        status = _proc("status", ("VmRSS", "VmHWM", "RssAnon", "RssFile", "Threads"))
        return {
            "pid": os.getpid(),
            **{f"{name}_kB" if name != "Threads" else name: number for name, number in status.items()},
            "descriptors": _descriptors(),
            "python_objects": len(gc.get_objects()),
            "garbage_collections": [generation["collections"] for generation in gc.get_stats()],
            "connections": self._registry.count(tunnels=False),
            "tunnels": self._registry.count(tunnels=True),
        }

    # -- commands -----------------------------------------------------------------------------------------------

    def _drain(self, _parameters: Parameters) -> dict[str, Any]:
        self._stop.drain()
        return {"pid": os.getpid()}

    def _end(self, _parameters: Parameters) -> dict[str, Any]:
        # In the loop's next turn: whoever asked gets the answer before its connection goes.
        asyncio.get_running_loop().call_later(_LAST_WORDS_SECONDS, self._stop.end)
        return {"pid": os.getpid()}


# Ample for an answer over loopback; nobody waits for the rest of it.
_LAST_WORDS_SECONDS: Final = 0.05


def page_of(parameters: Parameters) -> tuple[int, int]:
    """(offset, limit) as `parameters` ask for them. Raises Refusal."""
    numbers = []
    for name, default in (("offset", 0), ("limit", PAGE)):
        text = parameters.get(name, str(default))
        if not text.isascii() or not text.isdigit() or len(text) > len(str(MAX_PAGE)):
            raise Refusal(f"{name} must be a whole number up to {MAX_PAGE}")
        numbers.append(int(text))
    offset, limit = numbers
    if offset + limit > MAX_PAGE:
        raise Refusal(f"offset and limit together reach {MAX_PAGE} rows at most")
    return offset, limit


def set_level(parameters: Parameters) -> dict[str, Any]:
    """Set the level of this process's log where one is asked for; what it is now. Raises Refusal."""
    logger = logging.getLogger()
    level = parameters.get("level")
    if level is not None:
        if level not in LEVELS:
            raise Refusal(f"level must be one of {', '.join(LEVELS)}")
        logger.setLevel(level.upper())
    return {"pid": os.getpid(), "level": logging.getLevelName(logger.getEffectiveLevel()).lower()}


def _trust(trust: TrustAnchors, now: datetime.datetime) -> dict[str, Any]:
    return {
        "roots": [_shown(root, None, now) for root in trust.roots],
        "intermediates": [_shown(one, None, now) for one in trust.intermediates],
        "revocation_lists": [
            {
                "authority": edition.name,
                "number": edition.number,
                "age_s": round((now - edition.this_update).total_seconds()),
            }
            for edition in trust.editions
        ],
        "revoked": len(trust.revoked),
        # Far in the future where there is no list: nothing of it can grow old.
        "usable_for_s": round((trust.usable_until - now).total_seconds()) if trust.editions else None,
    }


def _shown(certificate: Any, der: bytes | None, now: datetime.datetime) -> dict[str, Any]:
    ends = certificate.not_valid_after_utc
    return {
        "subject": display_name(certificate),
        "uris": uris(certificate),
        "serial": f"{certificate.serial_number:x}",
        "not_before": certificate.not_valid_before_utc.isoformat(),
        "not_after": ends.isoformat(),
        "expires_in_s": round((ends - now).total_seconds()),
        **({"sha256": hashlib.sha256(der).hexdigest()} if der is not None else {}),
    }


def _proc(name: str, wanted: tuple[str, ...]) -> dict[str, int]:
    try:
        lines = Path("/proc/self", name).read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    found = (line.split() for line in lines)
    return {words[0].rstrip(":"): int(words[1]) for words in found if words[0].rstrip(":") in wanted}


def _descriptors() -> int | None:
    try:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())
    except OSError:
        return None
