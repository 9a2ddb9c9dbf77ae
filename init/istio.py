"""What istio-iptables writes beside its own chains: rules straight in built-in ones, and policy routing. Pure.

It does so for DNS (agent's port 15053, zones of connection tracking) and for TPROXY (mark 1337), more or less of it
from version to version. Left behind, the rules for DNS send every question to a port where nobody listens any more.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Final

PREFIX: Final = "ISTIO_"
HOOKS: Final = ("PREROUTING", "OUTPUT")
# Of rules as iptables-save writes them; the same patterns serve the shell's `case`. Istio's by themselves: nobody else
# uses that port.
DIRECT: Final = (
    "*-j REDIRECT --to-ports 15053",
    "*-j DNAT --to-destination *:15053",
    "*--sport 15053 *-j CT --zone *",
)
# Istio's where there is anything else of it: alone they could be anybody's.
BESIDE: Final = (
    "*-p udp -m udp --dport 53 -m owner *-j RETURN",
    "*-p udp -m udp --[ds]port 53 *-j CT --zone [12]",
    "*mark --mark 0x539[ /]*",
    "*-j MARK --set-xmark 0x53a/0xffffffff",
)
ROUTED_MARK: Final = 1337  # 0x539
ROUTED_TABLE: Final = 133


def is_direct(hook: str, rule: str) -> bool:
    """Whether a rule in the chain `hook` is Istio's by itself."""
    return _matches(DIRECT, hook, rule)


def is_beside(hook: str, rule: str) -> bool:
    """Whether a rule in the chain `hook` is Istio's where Istio is."""
    return _matches(BESIDE, hook, rule)


def _matches(patterns: Iterable[str], hook: str, rule: str) -> bool:
    return hook in HOOKS and any(fnmatchcase(rule, pattern) for pattern in patterns)
