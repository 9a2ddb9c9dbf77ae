"""What a worker has to do about policies while it serves: nothing, or what keeper.py does where there is a folder."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from mesh.modes import MTLSMode
from proxy.credentials import CredentialSource
from proxy.policy.config import PolicyConfig
from proxy.policy.gate import Gate
from proxy.registry import Registry

if TYPE_CHECKING:
    from proxy.policy.keeper import OnResources


class Policies(Protocol):
    """Beside the connections of one worker, from its start to its end."""

    @property
    def obstacle(self) -> str:
        """Why no traffic is welcome, in one line; "" where policies do not stand in the way."""

    def describe(self) -> dict[str, Any]:
        """What an operator is shown of where the policies come from."""

    async def load(self) -> None:
        """Read for the first time. To be awaited before anything is accepted, with our identity known."""

    def tend(self) -> None:
        """What has to be done every few seconds."""

    def refresh(self) -> None:
        """What SIGHUP asks for: look for something newer now."""

    async def close(self) -> None:
        """End."""


class NoPolicies:
    """Where no folder is configured."""

    obstacle = ""

    def describe(self) -> dict[str, Any]:
        """There is no folder."""
        return {"folder": None}

    async def load(self) -> None:
        """There is nothing to read."""

    def tend(self) -> None:
        """Nothing changes."""

    def refresh(self) -> None:
        """Nothing changes."""

    async def close(self) -> None:
        """There is nothing to end."""


def policies_of(
    config: PolicyConfig,
    mode: MTLSMode,
    gate: Gate,
    credentials: CredentialSource,
    registry: Registry,
    on_ready: Callable[[], None],
    on_resources: OnResources,
) -> Policies:
    """Keeps `gate` by what `config` says; `mode` holds where no policy says one.

    `on_ready` is called when the obstacle has gone, unless that was when `load` returned; `on_resources` with what is
    in force, whenever that was read anew.
    """
    if config.folder is None:
        return NoPolicies()
    # Whoever has no policies does without a reader of YAML: some megabytes.
    from proxy.policy.keeper import PolicyKeeper  # noqa: PLC0415

    return PolicyKeeper(config, config.folder, mode, gate, credentials, registry, on_ready, on_resources)
