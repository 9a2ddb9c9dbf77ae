"""The gate of the inbound side: each connection, and each stream of a tunnel, is asked about here before it is dialled.

What was let in is asked about again when the rules change (keeper.py). Nothing here waits: the whole costs a few
microseconds, and where neither policies nor limits are configured next to nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from mesh.facts import Facts
from mesh.modes import MTLSMode
from mesh.spiffe import SCHEME
from pqtls.events import HandshakeCompleted
from proxy.config import Endpoint
from proxy.policy.config import PolicyConfig
from proxy.policy.metrics import PolicyMetrics
from proxy.policy.plaintext_peers import PlaintextPeers
from proxy.policy.standing import Standing
from proxy.reasons import Flag, Refused
from proxy.record import ConnectionRecord, Sinks

if TYPE_CHECKING:
    from mesh.decision import Decision
    from proxy.policy.rules import Rules

_ADVICE: Final = "Change the policies if it should be let in; `qbitel policy explain` shows how they decide."


class Gate:
    """Decides by the `rules` of the moment; None: no policies are configured."""

    def __init__(
        self, config: PolicyConfig, mode: MTLSMode, sinks: Sinks, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """`mode` holds where no policy says one."""
        self._mode = mode
        self._opaque_ports = config.opaque_ports
        self._monotonic = monotonic
        self.metrics = PolicyMetrics(sinks.metrics.registry)
        self.plaintext_peers = PlaintextPeers(sinks.now, self.metrics.plaintext)
        self.rules: Rules | None = None
        self._limits = None
        if config.is_active:
            # A sidecar that asks for nothing of this does without the memory of it.
            from proxy.policy.limits import ConnectionLimits  # noqa: PLC0415

            self._limits = ConnectionLimits(config)

    def take_up(self, rules: Rules) -> None:
        """These hold from now on, whole and at once. What is open already is asked about by the caller."""
        self.rules = rules
        if self._limits is not None:
            self._limits.update(rules.rates, rules.connections)

    def mode(self, port: int) -> MTLSMode:
        """What is taken in at `port` of the workload."""
        return self._mode if self.rules is None else self.rules.mode(port)

    def is_server_first(self, port: int) -> bool:
        """Whether a silent client of `port` is to be taken for one that waits for the server to speak."""
        return port in self._opaque_ports

    def admit(self, facts: Facts, record: ConnectionRecord, *, is_secure: bool) -> Standing | None:
        """Let a connection in, or raise Refused. Whoever gets a Standing keeps it with the connection.

        `is_secure`: it came in TLS of the mesh. None: nothing here can ever concern it again.
        """
        if self._limits is None:
            return None
        rules = self.rules
        if rules is not None:
            self._judge(rules, facts, record, is_secure=is_secure, is_new=True)
        place = self._limits.enter(source_of(facts), facts.destination_port, self._monotonic())
        return Standing(self, facts, place, rules, is_secure=is_secure)

    def admit_again(self, standing: Standing, record: ConnectionRecord) -> None:
        """The same for what was let in before: raises Refused where the rules of now do not let it in."""
        rules = self.rules
        if rules is not None and rules is not standing.rules:
            self._judge(rules, standing.facts, record, is_secure=standing.is_secure, is_new=False)
            standing.rules = rules

    def left(self, standing: Standing) -> None:
        """A connection that was let in is over."""
        if self._limits is not None:
            self._limits.leave(standing.place)

    def describe(self) -> dict[str, Any]:
        """What an operator is shown: what holds now, and who comes without TLS of the mesh."""
        rules = self.rules
        return {
            "mode": (self._mode if rules is None else rules.mode_elsewhere).value,
            "port_modes": {} if rules is None else {str(port): mode.value for port, mode in rules.port_modes.items()},
            "authorization_policies": [] if rules is None else [str(one.metadata) for one in rules.policies.policies],
            "limits": []
            if rules is None
            else [*(one.name for one in rules.rates), *(one.name for one in rules.connections)],
            "opaque_ports": sorted(self._opaque_ports),
            "plaintext_peers": [peer.as_dict() for peer in self.plaintext_peers.peers()],
        }

    def _judge(self, rules: Rules, facts: Facts, record: ConnectionRecord, *, is_secure: bool, is_new: bool) -> None:
        if not is_secure and rules.mode(facts.destination_port) is MTLSMode.STRICT:
            raise Refused(
                Flag.DENY,
                "plaintext_refused",
                f"it came as plaintext, and port {facts.destination_port} takes only mutual TLS of the mesh (STRICT). "
                "Give the client a sidecar, or make the PeerAuthentication PERMISSIVE.",
            )
        decision = rules.decide(facts)
        if is_new or not decision.allowed:  # a reload must not count what stays as it was
            self.metrics.decided(decision)
        record.decided(decision.policy, _beside(decision))
        if not decision.allowed:
            raise Refused(Flag.DENY, "denied_by_policy", f"{decision.reason}. {_ADVICE}")


def facts_of(source: Endpoint, destination: Endpoint, event: HandshakeCompleted | None) -> Facts:
    """What policies can know of a connection; `event` is its handshake, None for one without TLS of the mesh."""
    principal, sni = None, ""
    if event is not None:
        principal, sni = event.peer_identity.removeprefix(SCHEME) or None, event.server_name or ""
    return Facts(destination.port, principal, source.host, destination.host, sni=sni)


def source_of(facts: Facts) -> str:
    """Whose connections are counted together."""
    return facts.principal or facts.source_ip or "-"


def _beside(decision: Decision) -> dict[str, str] | None:
    """What the access log says of policies that do not decide; None as a rule."""
    if decision.dry_run is None and not decision.audited:
        return None
    beside = {}
    if decision.dry_run is not None:
        beside["policy_dry_run"] = decision.dry_run.reason
    if decision.audited:
        beside["policy_audited"] = ",".join(decision.audited)
    return beside
