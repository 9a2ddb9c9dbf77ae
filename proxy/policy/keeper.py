"""Keeps the gate's rules those of the folder: reads it when it changes, in a thread, and takes up what is whole.

Until it could be read once nobody is let in, and the sidecar is not ready. After that the last good rules stay in
force whatever the folder becomes; what is wrong is said once, in one line that names the file.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mesh.errors import UserError
from mesh.modes import MTLSMode
from mesh.resources import ResourceSet
from mesh.selectors import Workload
from proxy.credentials import CredentialSource
from proxy.policy import folder
from proxy.policy.config import PolicyConfig
from proxy.policy.gate import Gate
from proxy.policy.rules import Rules
from proxy.policy.workload import workload_of
from proxy.reasons import Refused
from proxy.registry import LiveConnection, Registry
from proxy.relay import End
from proxy.rereading import Rereading

# (what is in force, who we are, our trust domain)
OnResources = Callable[[ResourceSet, Workload, str], None]

# Open connections that are asked about again before others get their turn: at most 20 µs each.
_PER_TURN: Final = 128

_log = logging.getLogger("qbitel.proxy")


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What rules are made of: when that is another, they are made anew."""

    seen: folder.Seen
    identity: str


class PolicyKeeper:
    """One worker's. Everything but the reading itself happens on its loop."""

    def __init__(
        self, config: PolicyConfig, path: Path, mode: MTLSMode, gate: Gate, credentials: CredentialSource,
        registry: Registry, on_ready: Callable[[], None], on_resources: OnResources,
    ) -> None:  # fmt: skip
        """`path` is the folder; `mode` holds where no policy says one. From here on the gate is closed.

        `on_ready` is called when `obstacle` has gone, unless that was when `load` returned; `on_resources` with what
        is in force, whenever that was read anew.
        """
        self._config = config
        self._path = path
        self._mode = mode
        self._gate = gate
        self._credentials = credentials
        self._registry = registry
        self._on_ready = on_ready
        self._on_resources = on_resources
        self._generation = 0
        self._tried: _Wanted | None = None
        self._failure = "the policies have not been read yet"
        self._rereading = Rereading("the policies", self._renew, self._failed)
        self._began = self._loaded = False
        gate.take_up(Rules.closed(self._failure))

    @property
    def obstacle(self) -> str:
        """Why no traffic is welcome, in one line; "" once policies were read, whatever became of them since."""
        return "" if self._generation else f"no policies: {self._failure}"

    def describe(self) -> dict[str, Any]:
        """What an operator is shown of the folder."""
        return {"folder": str(self._path), "generation": self._generation, "failure": self._failure or None}

    async def load(self) -> None:
        """Read the folder for the first time. Needs our identity. Where it fails, `tend` tries again."""
        self._began = True
        self.tend()
        await self._rereading.settled()
        self._loaded = True

    def tend(self) -> None:
        """To be called every few seconds: begin to look for something new. Before `load` it does nothing."""
        if self._began:
            self._rereading.ask()

    def refresh(self) -> None:
        """What SIGHUP asks for: read now, whether something seems new or not."""
        self._tried = None
        self.tend()

    async def close(self) -> None:
        """End."""
        await self._rereading.close()

    async def _renew(self) -> None:
        """Read the folder where something is new, in a thread: connections go on meanwhile."""
        loop = asyncio.get_running_loop()
        wanted = _Wanted(await loop.run_in_executor(None, folder.look, self._path), self._credentials.current.identity)
        if wanted != self._tried:
            self._tried = wanted
            reading, workload, trust_domain, rules = await loop.run_in_executor(None, self._read, wanted.identity)
            self._take_up(reading, workload, rules)
            self._on_resources(reading.resources, workload, trust_domain)
            await self._ask_again()

    def _read(self, identity: str) -> tuple[folder.Reading, Workload, str, Rules]:
        """In a thread: touches nothing that others see."""
        workload, trust_domain = workload_of(identity, self._config)
        reading = folder.read(self._path, self._config.root_namespace)
        rules = Rules.of(
            reading.resources,
            workload,
            default_mode=self._mode,
            trust_domain=trust_domain,
            trust_domain_aliases=self._config.trust_domain_aliases,
        )
        return reading, workload, trust_domain, rules

    def _take_up(self, reading: folder.Reading, workload: Workload, rules: Rules) -> None:
        self._generation += 1
        self._failure = ""
        self._gate.take_up(rules)
        self._gate.metrics.reloaded(ok=True)
        self._gate.metrics.generation.set(self._generation)
        if self._loaded and self._generation == 1:
            self._on_ready()
        _log.info(
            "policies in force (generation %d): %d files, %d AuthorizationPolicies for us (%s), %s",
            self._generation, reading.files, len(rules.policies.policies), workload, rules.mode_elsewhere.value,
        )  # fmt: skip
        if reading.warnings:
            _log.warning(
                "%d warnings about the policies, the first: %s; `qbitel policy check` shows all",
                len(reading.warnings), reading.warnings[0],
            )  # fmt: skip

    def _failed(self, error: UserError) -> None:
        self._tried = None  # it is tried again: what kept a file from being read need not show in its times
        if str(error) == self._failure:
            return  # it was said, and counted
        self._failure = str(error)
        self._gate.metrics.reloaded(ok=False)
        if self._generation:
            _log.error("the policies were not reloaded, the last good ones stay in force: %s", error)
        else:
            self._gate.take_up(Rules.closed(f"the policies cannot be read: {error}"))
            _log.error("the policies cannot be read, nobody is let in until they can: %s", error)

    async def _ask_again(self) -> None:
        """Reset what the new rules do not let in. What has no relay yet asks by itself before it gets one."""
        ended = 0
        for number, live in enumerate(self._open_connections()):
            if number % _PER_TURN == _PER_TURN - 1:
                await asyncio.sleep(0)
            ended += self._ends(live)
        if ended:
            _log.warning("%d open connections are not let in by the new policies and were reset", ended)

    def _open_connections(self) -> Iterable[LiveConnection]:
        """Those that are there now: later ones are judged by the new rules from the start."""
        found = self._registry.page(0, self._registry.count(tunnels=False), tunnels=False)
        return [one for one in found if isinstance(one, LiveConnection)]

    def _ends(self, live: LiveConnection) -> bool:
        standing, relay = live.standing, live.relay
        if standing is None or relay is None or relay.ended:
            return False
        try:
            self._gate.admit_again(standing, live.record)
        except Refused as refused:
            relay.abort(End.DENIED, refused)
            return True
        return False
