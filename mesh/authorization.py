"""AuthorizationPolicy as values: who may do what under which conditions, as it was written.

What a policy means for a connection is decided in mesh/decision.py; nothing is expanded or normalised here, so that
whoever shows a policy shows what its writer wrote.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from mesh.metadata import Metadata
from mesh.selectors import Selector

# The metadata of Envoy's filters: no sidecar of ours has them.
ENVOY_METADATA: Final = "experimental.envoy.filters."


class Action(Enum):
    """What a policy does with what its rules match."""

    ALLOW = "ALLOW"
    DENY = "DENY"
    AUDIT = "AUDIT"
    CUSTOM = "CUSTOM"  # an external authorizer is asked; a sidecar has none and denies


@dataclass(frozen=True, slots=True)
class Source:
    """Where from: every list that is not empty must hold; a list holds where one of its values does."""

    principals: tuple[str, ...] = ()
    not_principals: tuple[str, ...] = ()
    request_principals: tuple[str, ...] = ()
    not_request_principals: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    not_namespaces: tuple[str, ...] = ()
    service_accounts: tuple[str, ...] = ()
    not_service_accounts: tuple[str, ...] = ()
    trust_domains: tuple[str, ...] = ()
    not_trust_domains: tuple[str, ...] = ()
    ip_blocks: tuple[str, ...] = ()
    not_ip_blocks: tuple[str, ...] = ()
    remote_ip_blocks: tuple[str, ...] = ()
    not_remote_ip_blocks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """What is done: every list that is not empty must hold; a list holds where one of its values does."""

    hosts: tuple[str, ...] = ()
    not_hosts: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    not_ports: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    not_methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    not_paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Condition:
    """A further condition on an attribute, as in `request.headers[version]`."""

    key: str
    values: tuple[str, ...] = ()
    not_values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """Holds where one of `sources` (or none is named), one of `operations` (likewise) and each condition do."""

    sources: tuple[Source, ...] = ()
    operations: tuple[Operation, ...] = ()
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class AuthorizationPolicy:
    """Matches where one of its rules does: without rules never, with an empty rule always."""

    metadata: Metadata
    action: Action
    rules: tuple[Rule, ...]
    selector: Selector
    dry_run: bool = False
    provider: str = ""  # the external authorizer of a CUSTOM policy

    @property
    def has_http_rules(self) -> bool:
        """Whether a rule has conditions on requests."""
        return any(is_http_rule(rule) for rule in self.rules)


# What concerns a request, which a connection that is not read as HTTP does not have.
HTTP_KEYS: Final = "request."
HTTP_SOURCE: Final = ("request_principals", "not_request_principals")
HTTP_OPERATION: Final = ("hosts", "not_hosts", "methods", "not_methods", "paths", "not_paths")


def is_http_rule(rule: Rule) -> bool:
    """Whether some condition of the rule is about a request, which a TCP connection does not have."""
    return (
        any(getattr(source, name) for source in rule.sources for name in HTTP_SOURCE)
        or any(getattr(operation, name) for operation in rule.operations for name in HTTP_OPERATION)
        or any(condition.key.startswith(HTTP_KEYS) for condition in rule.conditions)
    )
