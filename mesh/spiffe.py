"""SPIFFE identities: parsing and making of `spiffe://<trust domain>/<path>`.

Source: the SPIFFE-ID specification, sections 2.1 (trust domain), 2.2 (path) and 2.3 (maximum length).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from mesh import names

SCHEME: Final = "spiffe://"
# SPIFFE-ID §2.3: implementations MUST support identifiers of up to 2048 bytes, and SHOULD NOT make longer ones.
MAX_ID_LENGTH: Final = 2048
# SPIFFE-ID §2.1: at most 255 bytes of lower-case letters, digits, dots, dashes and underscores.
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}\Z")
# SPIFFE-ID §2.2: letters, digits, dots, dashes and underscores; percent-encoding is not allowed.
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+\Z")


class InvalidSpiffeId(ValueError):
    """A string is no SPIFFE ID. The message says which rule it breaks."""


@dataclass(frozen=True, slots=True)
class SpiffeId:
    """One workload identity. `str()` gives the URI back; two ids are equal when their URIs are."""

    trust_domain: str
    segments: tuple[str, ...]

    def __post_init__(self) -> None:
        check_trust_domain(self.trust_domain)
        if not self.segments:
            raise InvalidSpiffeId("a workload's SPIFFE ID has a path, as in spiffe://cluster.local/ns/default/sa/web")
        for segment in self.segments:
            if not _SEGMENT.match(segment) or segment in (".", ".."):
                raise InvalidSpiffeId(
                    f"{segment[:64]!r} is no path segment of a SPIFFE ID: letters, digits, '.', '-' and '_' only"
                )
        if len(str(self)) > MAX_ID_LENGTH:
            raise InvalidSpiffeId(f"a SPIFFE ID has at most {MAX_ID_LENGTH} bytes; this one has {len(str(self))}")

    @classmethod
    def parse(cls, uri: str) -> SpiffeId:
        """Return the identity that `uri` spells, or raise InvalidSpiffeId."""
        if not uri.startswith(SCHEME):
            raise InvalidSpiffeId(f"{uri[:64]!r} does not start with {SCHEME}")
        trust_domain, *segments = uri[len(SCHEME) :].split("/")
        return cls(trust_domain, tuple(segments))

    @classmethod
    def for_service_account(cls, namespace: str, service_account: str, trust_domain: str) -> SpiffeId:
        """The id of a Kubernetes service account, `/ns/<namespace>/sa/<name>`, as Istio writes it."""
        return cls(trust_domain, ("ns", namespace, "sa", service_account))

    @classmethod
    def of_authority(cls, trust_domain: str) -> SpiffeId:
        """The identity of the mesh's own certificate authority: reserved, no proof of a workload leads to it."""
        return cls.for_service_account(names.CONTROL_NAMESPACE, names.AUTHORITY_SERVICE, trust_domain)

    @property
    def namespace(self) -> str | None:
        """The Kubernetes namespace, where the path has the form `/ns/<namespace>/sa/<name>`; else None."""
        match self.segments:
            case ("ns", namespace, "sa", _):
                return namespace
        return None

    def __str__(self) -> str:
        return f"{SCHEME}{self.trust_domain}/{'/'.join(self.segments)}"


def check_trust_domain(name: str) -> str:
    """Return `name`, or raise InvalidSpiffeId where it is no trust domain name (SPIFFE-ID §2.1)."""
    if not _TRUST_DOMAIN.match(name):
        raise InvalidSpiffeId(
            f"{name[:64]!r} is no trust domain: 1 to 255 lower-case letters, digits, '.', '-' and '_'"
        )
    return name
