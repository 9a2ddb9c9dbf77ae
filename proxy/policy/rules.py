"""What holds for our inbound connections: the mode of each port, who may connect, and how many. A value, never changed.

A reload makes a new one beside it; whoever decides takes one or the other, and never half of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mesh.decision import Compiled, Decision, closed, compile_policies
from mesh.facts import Facts
from mesh.modes import MTLSMode
from mesh.peer_authentication import effective_mode
from mesh.resources import ResourceSet
from mesh.selectors import Workload
from proxy.policy.inbound_limits import WorkloadConnections, WorkloadRate, connections_of, rates_of


@dataclass(frozen=True, slots=True)
class Rules:
    """The policies of one workload, ready."""

    port_modes: Mapping[int, MTLSMode]
    mode_elsewhere: MTLSMode
    policies: Compiled
    rates: tuple[WorkloadRate, ...] = ()
    connections: tuple[WorkloadConnections, ...] = ()

    @classmethod
    def of(
        cls,
        resources: ResourceSet,
        workload: Workload,
        *,
        default_mode: MTLSMode,
        trust_domain: str,
        trust_domain_aliases: tuple[str, ...] = (),
    ) -> Rules:
        """Those of `resources` that are about `workload`. `default_mode` holds where no PeerAuthentication says one."""
        ports = {port for policy in resources.peer_authentications for port in policy.port_modes}
        return cls(
            {port: effective_mode(resources, workload, port, default=default_mode).mode for port in ports},
            effective_mode(resources, workload, 0, default=default_mode).mode,  # no policy names port 0
            compile_policies(
                resources.authorization_policies,
                workload,
                trust_domain=trust_domain,
                trust_domain_aliases=trust_domain_aliases,
                root_namespace=resources.root_namespace,
            ),
            rates_of(resources, workload),
            connections_of(resources, workload),
        )

    @classmethod
    def closed(cls, reason: str) -> Rules:
        """Nobody is let in, for `reason`: where policies are wanted and there are none yet."""
        return cls({}, MTLSMode.STRICT, closed(reason))

    def mode(self, port: int) -> MTLSMode:
        """What is taken in at `port`."""
        return self.port_modes.get(port, self.mode_elsewhere)

    def decide(self, facts: Facts) -> Decision:
        """Whether a connection is let in, and who says so."""
        return self.policies.decide(facts)
