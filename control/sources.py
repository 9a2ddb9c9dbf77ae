"""Who may call: the names that people use for callers, as principals.

A Service's name is no identity: a connection proves a service account. Where a name stands for a caller it is the
service account of that name, which is how workloads are usually set up; who has it otherwise gives the account.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mesh.building import checks
from mesh.building.authorization_policy import service_account_principal
from mesh.spiffe import InvalidSpiffeId, SpiffeId

# Whoever has proved any identity of the mesh's authorities.
ANYONE: Final = "*"


def principals(argument: str, sources: Sequence[str], namespace: str, trust_domain: str) -> list[str]:
    """The principals of `sources`, in their order; ValueError names the entry that is none."""
    found = checks.several(argument, sources, lambda where, source: _principal(where, source, namespace, trust_domain))
    if ANYONE in found and len(found) > 1:
        raise ValueError(f"{argument}: {ANYONE!r} stands alone, because it lets everyone in")
    return found


def _principal(argument: str, source: object, namespace: str, trust_domain: str) -> str:
    if source == ANYONE:
        return ANYONE
    if isinstance(source, str):
        match source.split("/"):
            case [account]:
                checks.object_name(argument, account)
                return service_account_principal(trust_domain, namespace, account)
            case [other, account]:
                checks.label_name(argument, other)
                checks.object_name(argument, account)
                return service_account_principal(trust_domain, other, account)
            case [_, "ns", _, "sa", _]:
                return _whole_principal(argument, source)
    raise checks.refused(
        argument, source, "a service account ('web'), one of another namespace ('shop/web'), a whole principal, or '*'"
    )


def _whole_principal(argument: str, source: str) -> str:
    try:
        SpiffeId.parse(f"spiffe://{source}")
    except InvalidSpiffeId as error:
        raise ValueError(f"{argument}: {checks.shown(source)} is no principal: {error}") from None
    return source
