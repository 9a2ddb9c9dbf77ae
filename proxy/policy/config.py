"""What an operator says about policy: frozen values, checked once. Light: a sidecar without policies imports it too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mesh.errors import UserError
from proxy.policy.server_first import SERVER_FIRST

# What a token bucket takes (mesh/token_bucket.py).
_SLOWEST: Final = 1e-6
_MOST: Final = 2**32 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyConfig:
    """Which policies hold for this sidecar, and what one source may ask of it.

    `folder` holds Istio's resources as YAML or JSON; None: no policies, `--mode` alone. They are those of the workload
    with these `labels` in the namespace, and with the service account, that our SPIFFE ID names; `namespace` and
    `service_account` say it where the ID has another form. `root_namespace` None: Istio's.

    `connection_rate` is connections per second from one source identity, `connection_burst` how many of them at once
    (None: as many as a second brings), `max_connections_per_peer` how many may be open at one time. A source that has
    shown no identity is its address.
    """

    folder: Path | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    namespace: str | None = None
    service_account: str | None = None
    root_namespace: str | None = None
    trust_domain_aliases: tuple[str, ...] = ()
    opaque_ports: frozenset[int] = frozenset(SERVER_FIRST)
    connection_rate: float | None = None
    connection_burst: int | None = None
    max_connections_per_peer: int | None = None

    def __post_init__(self) -> None:
        if self.connection_rate is not None and not _SLOWEST <= self.connection_rate <= _MOST:
            raise UserError(f"--connection-rate must be from {_SLOWEST:g} to {_MOST} connections per second")
        if self.connection_burst is not None:
            if self.connection_rate is None:
                raise UserError("--connection-burst goes with --connection-rate: give that too")
            if not 1 <= self.connection_burst <= _MOST:
                raise UserError(f"--connection-burst must be from 1 to {_MOST}")
        if self.max_connections_per_peer is not None and self.max_connections_per_peer < 1:
            raise UserError("--max-connections-per-peer must be at least 1")
        for port in self.opaque_ports:
            if not 1 <= port <= 65535:
                raise UserError(f"--opaque-ports: {port} is no port (1 to 65535)")

    @property
    def is_active(self) -> bool:
        """Whether a connection has to be asked about at all."""
        return not (self.folder is None and self.connection_rate is None and self.max_connections_per_peer is None)

    def check_folder(self) -> None:
        """Raise UserError where the folder is none: a slip on the command line, not a policy that is broken."""
        if self.folder is not None and not self.folder.is_dir():
            raise UserError(f"--policy {self.folder} is no folder; give one that holds the policies' YAML files")
