"""Keeps a router's entries those of the peers document, and the addresses of its host names those that resolvers give.

The document is read when it changes, in a thread, and taken up whole or not at all: the last good one stays in use, and
what is wrong is said once, in one line. It must be good when the sidecar starts, or that ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mesh.errors import UserError
from proxy.config import ProxyConfig
from proxy.peers.document import PeersDocument, read_peers
from proxy.peers.entries import PeerEntry, mesh_entry
from proxy.peers.names import NameBook
from proxy.peers.router import Router
from proxy.peers.table import PeerTable
from proxy.reading import read_file, signature_of
from proxy.rereading import Rereading
from proxy.routes import Mode

if TYPE_CHECKING:
    from mesh.resources import ResourceSet
    from mesh.selectors import Workload
    from proxy.peers.rules import Rules

# What a discovery service writes for a large cluster comes to 2 MB.
MAX_BYTES: Final = 8 << 20
# Until a name's new address is known, what is dialled there is nobody's. CoreDNS' records live for 5 s, or 30 s as many
# clusters set it; getaddrinfo() does not tell. Where there are many names, four questions a second are enough load.
RESOLVE_SECONDS: Final = 5.0
_LONGEST_RESOLVE_SECONDS: Final = 30.0
_QUESTIONS_PER_SECOND: Final = 4.0
# How long the first answers are waited for before traffic is taken; what has not answered by then is asked again.
_FIRST_ANSWERS: Final = 5.0
# What has come is in use after this, however long other answers take; each publication costs as much as all names do.
_PUBLISH_SECONDS: Final = 0.5
# Threads of the loop's pool that may wait for resolvers at one time: others need some as well.
_AT_ONCE: Final = 4

# (name) → its addresses. Raises OSError.
Resolve = Callable[[str], Awaitable[tuple[str, ...]]]

_log = logging.getLogger("qbitel.proxy")


def read_document(config: ProxyConfig, path: Path) -> PeersDocument:
    """The document `path`, with the entries of `--mesh`. Raises UserError, with one line."""
    return _understood(config, path, _content(path))


def _content(path: Path) -> bytes:
    return read_file(path, if_missing="--peers names the document of peers", limit=MAX_BYTES)


def _understood(config: ProxyConfig, path: Path, content: bytes) -> PeersDocument:
    document = read_peers(content, str(path))
    names = {profile.name for profile in config.profiles}
    for entry in document.entries:
        if entry.profile is not None and entry.profile not in names:
            raise UserError(f"{path}: {entry.name} wants the profile {entry.profile}: name it in --profile too")
        if entry.tunnel_port is not None and not config.tunnels:
            raise UserError(f"{path}: {entry.name} has a tunnelPort, which is of no use with --no-tunnels")
    return replace(document, entries=_with_mesh(config, path, document.entries))


def _with_mesh(config: ProxyConfig, path: Path, entries: tuple[PeerEntry, ...]) -> tuple[PeerEntry, ...]:
    """`--mesh` beside the document: who says more of the same network may, unless it is less."""
    table = PeerTable(entries)
    added = []
    for network in config.mesh:
        same = [entry for entry in entries if network in entry.networks and any(0 in ports for ports in entry.ports)]
        for entry in same:
            if entry.mode is not Mode.REQUIRE:
                raise UserError(
                    f"{path}: {entry.name} sets mode {entry.mode.value} for {network}, and --mesh {network} requires "
                    "the mesh: leave one of them out"
                )
        if not same:
            added.append(mesh_entry(network))
    return (*table.entries, *added)


class PeersKeeper:
    """One worker's. Everything but reading and resolving happens on its loop."""

    def __init__(self, config: ProxyConfig, path: Path, router: Router, resolve: Resolve | None = None) -> None:
        """Reads the document. `resolve` None: the system's resolver. Raises UserError."""
        self._config = config
        self._path = path
        self._router = router
        self._resolve = resolve or _system_resolve
        self._book = NameBook()
        self._failure = ""
        self._generation = 0
        self._rules: Rules | None = None
        self._is_old = False  # whether the file is another than the document
        self._rereading = Rereading("the peers document", self._renew, self._failed)
        self._resolving: asyncio.Task[None] | None = None
        self._resolved_at = float("-inf")
        self._unresolved: set[str] = set()
        self._is_found = False  # whether answers came that the router does not know
        self._seen = signature_of((path,))
        self._in_use = PeersDocument(())
        self._document = read_document(config, path)
        self._take_up(self._document, self._document.entries)

    async def load(self) -> None:
        """Wait until the rules that are known hold, and, but not for ever, for the addresses of all names."""
        await self._rereading.settled()
        await self._ask_first(self._router.names)
        self._publish()
        self._resolved_at = self._router.now()

    def tend(self) -> None:
        """To be called every few seconds: begin to read where the file has changed, and to resolve when it is time."""
        self._router.tend()
        seen = signature_of((self._path,))
        if seen != self._seen:
            self._seen, self._is_old = seen, True
            self._rereading.ask()
        if self._router.now() - self._resolved_at >= resolve_seconds(len(self._router.names)):
            self._begin_resolving()

    def refresh(self) -> None:
        """What SIGHUP asks for: read and resolve now, whether something seems new or not."""
        self._seen = ()
        self._resolved_at = float("-inf")
        self.tend()

    async def close(self) -> None:
        """End."""
        await self._rereading.close()
        if self._resolving is not None:
            self._resolving.cancel()
            await asyncio.gather(self._resolving, return_exceptions=True)

    def follow(self, resources: ResourceSet, client: Workload, trust_domain: str) -> None:
        """The DestinationRules of the policies' folder hold from now on for what `client`, which is us, dials."""
        from proxy.peers.rules import Rules  # noqa: PLC0415  # whoever has no policies does without: two megabytes

        profiles = frozenset(profile.name for profile in self._config.profiles)
        rules = Rules(resources.destination_rules, client, trust_domain, resources.root_namespace, profiles)
        if rules == self._rules:
            return
        self._rules = rules
        self._rereading.ask()
        for rule in rules.unspoken[:1]:
            _log.warning(
                "%s (and %d more) wants a profile that --profile does not name: connections are made by those that it "
                "names", rule.metadata, len(rules.unspoken) - 1,
            )  # fmt: skip

    # -- the document -----------------------------------------------------------------------------------------------

    async def _renew(self) -> None:
        # Ten thousand entries take seconds to read, and a tenth of one to be made: in a thread connections go on
        # meanwhile.
        if self._is_old:
            self._is_old = False
            document = await self._read()
            # Before the document holds: a destination by name must not escape it meanwhile.
            await self._ask_first(PeerTable(document.entries).names - self._book.addresses.keys())
            self._document = document
        document, rules = self._document, self._rules
        entries = document.entries
        if rules is not None:
            from proxy.peers.rules import entries_with  # noqa: PLC0415  # see follow

            entries = await asyncio.to_thread(entries_with, entries, document.rules, rules)
        self._take_up(document, entries)

    async def _read(self) -> PeersDocument:
        try:
            content = await asyncio.to_thread(_content, self._path)
        except UserError:
            # Nothing changes about the file when it can be read again: try at the next `tend`. What was read and is
            # wrong stays wrong until the file changes, and may take seconds to read.
            self._seen = ()
            raise
        return await asyncio.to_thread(_understood, self._config, self._path, content)

    def _take_up(self, document: PeersDocument, entries: tuple[PeerEntry, ...]) -> None:
        self._failure = ""
        self._use(entries)
        if document is self._in_use:
            return
        self._in_use = document
        self._generation += 1
        self._router.metrics.reloaded(ok=True)
        self._router.metrics.generation.set(self._generation)
        counts = ", ".join(f"{sum(entry.mode is mode for entry in entries)} {mode.value}" for mode in Mode)
        _log.info(
            "peers in use (generation %d): %d entries of %s: %s", self._generation, len(entries), self._path, counts
        )

    def _use(self, entries: tuple[PeerEntry, ...]) -> None:
        self._router.take_up(entries)
        self._book.keep_only(self._router.names)
        self._publish()
        if ruled := sum(bool(entry.rule) for entry in entries):
            _log.info("DestinationRules hold for %d of the %d entries of peers", ruled, len(entries))

    def _failed(self, error: UserError) -> None:
        if str(error) == self._failure:
            return  # it was said, and counted
        self._failure = str(error)
        self._router.metrics.reloaded(ok=False)
        _log.error("the peers document was not reloaded, the last good one stays in use: %s", error)

    # -- names ------------------------------------------------------------------------------------------------------

    def _begin_resolving(self) -> None:
        if self._resolving is None or self._resolving.done():
            self._resolved_at = self._router.now()
            self._resolving = asyncio.get_running_loop().create_task(self._resolve_all())

    async def _ask_first(self, names: Iterable[str]) -> None:
        """Ask for names that are new, and wait for the answers, but not for ever."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_ANSWERS):
                await self._ask(names)

    async def _ask(self, names: Iterable[str]) -> None:
        places = asyncio.Semaphore(_AT_ONCE)
        await asyncio.gather(*(self._resolve_one(name, places) for name in names))

    async def _resolve_all(self) -> None:
        # A resolver that says nothing of one name for half a minute must not keep the others from being used.
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(self._ask(self._router.names))
            while not asking.done():
                await asyncio.wait((asking,), timeout=_PUBLISH_SECONDS)
                if self._is_found:
                    self._publish()
        self._book.keep_only(self._router.names)
        self._publish()

    def _publish(self) -> None:
        self._is_found = False
        self._router.take_addresses(self._book.addresses, self._book.latest)

    async def _resolve_one(self, name: str, places: asyncio.Semaphore) -> None:
        async with places:
            try:
                addresses = await self._resolve(name)
            except (OSError, UnicodeError) as error:
                self._could_not(name, str(error))
                return
        self._unresolved.discard(name)
        self._is_found |= self._book.found(name, addresses, self._router.now())

    def _could_not(self, name: str, why: str) -> None:
        self._is_found |= self._book.found(name, (), self._router.now())  # what was found before is forgotten in time
        if name not in self._unresolved:
            self._unresolved.add(name)
            _log.warning(
                "%s, a host of the peers document, has no address (%s): connections there are treated by what the "
                "document says of their addresses; it is asked again every few seconds", name, why,
            )  # fmt: skip


def resolve_seconds(names: int) -> float:
    """How often so many names are asked for, in seconds."""
    return max(RESOLVE_SECONDS, min(_LONGEST_RESOLVE_SECONDS, names / _QUESTIONS_PER_SECOND))


async def _system_resolve(name: str) -> tuple[str, ...]:
    found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))
