"""Keeps the ConfigMap `qbitel-mesh` of each namespace what the cluster's policies and Services say (ADR 22).

Everything is decided from what is there now; what must be remembered (which policies were good last, which Services
required the mesh) is read from what was published. So any replica can go on where another ended.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from control.discovery.client_rules import NO_RULES, ClientRules, client_rules
from control.discovery.istio_kinds import KINDS, FollowedKind
from control.discovery.members import Members, members_of, namespaces_with_sidecars
from control.discovery.metrics import Metrics
from control.discovery.networks import ClusterNetworks
from control.discovery.peers_text import MeshSettings, peers_text
from control.discovery.policies import Part, policies_text, read_config_map, service_line
from control.discovery.policy_book import NOTHING, PolicyBook, Source, disabling
from control.discovery.published import MANAGED_BY, MAX_BYTES, OURS, Present, Text, Wanted, present_of, problem_text
from control.discovery.workloads import Namespace, Pod, Service, read_namespace, read_pod, read_service
from kube.client import Cluster, resource
from kube.mirror import Mirror
from kube.objects import Key, Object
from kube.reconciler import Reconciler, Step
from mesh.names import MESH_CONFIG_MAP, POLICY_LABEL
from mesh.resources import ResourceSet

# A new peers document goes to every namespace: so many Services may come one by one as like, it is written this often.
# The kubelet takes up to three times as long to bring it to the pods.
PEERS_SECONDS: Final = 30.0
# A replica that leads looks every ten seconds. One that has not for so long was no leader: its memory is old.
_STALE_SECONDS: Final = 60.0

_log = logging.getLogger("qbitel.discovery")


class Discovery:
    """`run` watches and, while `is_leader`, writes."""

    def __init__(
        self,
        cluster: Cluster,
        is_leader: Callable[[], bool],
        settings: MeshSettings,
        metrics: Metrics,
        *,
        root_namespace: str,
        clock: Callable[[], float] = time.monotonic,
        peers_seconds: float = PEERS_SECONDS,
    ) -> None:
        self._cluster = cluster
        self._settings = settings
        self._metrics = metrics
        self._root = root_namespace
        self._clock = clock
        self._peers_seconds = peers_seconds
        self._is_leader = is_leader
        self._reconciler = Reconciler(self._plan, is_leader, clock=clock)
        poke = self._reconciler.poke
        self._namespaces: Mirror[Namespace] = Mirror(cluster, resource("namespaces"), read_namespace, poke)
        self._pods: Mirror[Pod] = Mirror(cluster, resource("pods"), read_pod, poke)
        self._services: Mirror[Service] = Mirror(cluster, resource("services"), read_service, poke)
        self._config_maps: Mirror[Object] = Mirror(
            cluster, resource("configmaps"), _policies_in, poke, {"labelSelector": f"{POLICY_LABEL}=true"}
        )
        # By name and not by label, so that others' are seen before we run into them.
        self._present: Mirror[Present] = Mirror(
            cluster,
            resource("configmaps"),
            partial(present_of, control_namespace=settings.control_namespace),
            poke,
            {"fieldSelector": f"metadata.name={MESH_CONFIG_MAP}"},
        )
        self._kinds = [FollowedKind(cluster, kind, poke) for kind in KINDS]
        self._networks = ClusterNetworks(cluster, poke) if settings.detects else None
        self._book = PolicyBook()
        self._members: Members = {}
        self._peers: tuple[Text, ...] = ()
        self._peers_since = -math.inf
        self._planned = -math.inf
        self._texts: dict[str, tuple[Part, Part, tuple[str, ...], Text]] = {}
        self._service_lines: Mapping[str, tuple[str, ...]] = {}
        self._told: dict[str, str] = {}
        self._foreign: frozenset[str] = frozenset()

    @property
    def obstacle(self) -> str:
        """What is not known yet, in one line; "" when all of it is."""
        ready = {
            "namespaces": self._namespaces.ready,
            "pods": self._pods.ready,
            "services": self._services.ready,
            "configmaps": self._config_maps.ready and self._present.ready,
            "nodes and servicecidrs": self._networks is None or self._networks.ready,
            **{kind.name: kind.ready for kind in self._kinds},
        }
        waiting = [name for name, is_ready in ready.items() if not is_ready]
        return f"waiting for the API server's {', '.join(waiting)}" if waiting else ""

    async def run(self) -> None:
        """Until cancelled; whatever the API server does is survived."""
        async with asyncio.TaskGroup() as group:
            for mirror in (self._namespaces, self._pods, self._services, self._config_maps, self._present):
                group.create_task(mirror.run())
            for kind in self._kinds:
                group.create_task(kind.run())
            if self._networks is not None:
                group.create_task(self._networks.run())
            group.create_task(self._reconciler.run())

    # -- what is to be done -------------------------------------------------------------------------------------------

    async def _plan(self) -> Sequence[Step]:
        if self.obstacle:
            return ()
        began = self._clock()
        if began - self._planned > _STALE_SECONDS:
            self._book.forget()
            self._members, self._peers = {}, ()
        await self._book.update(self._sources())
        self._service_lines = _lines_by_namespace(self._services.items)
        present = {namespace: found for (namespace, _), found in self._present.items.items()}
        alive = {name for _, name in self._namespaces.items}
        meshed = self._meshed(alive)
        root, root_faults = self._part(self._root, present)
        members = await self._new_members(root or NOTHING, present)
        peers = self._peers_documents(members, alive, present)
        self._tell_foreign(frozenset(name for name in meshed if name in present and not present[name].is_ours))
        steps: list[Step] = []
        faults: dict[str, tuple[str, ...]] = {}
        ours = {name for name, found in present.items() if found.is_ours and name in alive}
        for namespace in sorted((meshed | ours) - self._foreign):
            own, its_faults = self._part(namespace, present)
            if root is None and namespace != self._root:
                its_faults += root_faults
            wanted = self._wanted(namespace, own, root, peers, its_faults)
            if wanted.problem:
                faults[namespace] = its_faults or (wanted.problem,)
            if (step := self._step(namespace, wanted, present.get(namespace))) is not None:
                steps.append(step)
        self._texts = {namespace: known for namespace, known in self._texts.items() if namespace in meshed | ours}
        self._book.keep_only(alive | self._homes())
        self._tell({namespace: problem_text(found) for namespace, found in faults.items()})
        self._planned = self._clock()
        self._metrics.show(
            faults={namespace: len(found) for namespace, found in faults.items()},
            namespaces=len(meshed),
            behind=len(steps),
            seconds=self._planned - began,
        )
        return steps

    def _sources(self) -> list[Source]:
        return [Source("configmaps", self._config_maps.items, read_config_map), *(kind.source for kind in self._kinds)]

    def _meshed(self, alive: set[str]) -> set[str]:
        """Where sidecars are or will be, and the control namespace, where any replica finds what was published last."""
        asking = {name for (_, name), namespace in self._namespaces.items.items() if namespace.asks}
        return (asking | namespaces_with_sidecars(self._pods.items) | self._homes()) & alive

    def _homes(self) -> set[str]:
        return {self._settings.control_namespace, self._root}

    def _part(self, namespace: str, present: Mapping[str, Present]) -> tuple[Part | None, tuple[str, ...]]:
        published = present.get(namespace)
        return self._book.part(namespace, None if published is None else published.own)

    async def _new_members(self, root: Part, present: Mapping[str, Present]) -> Members:
        home = present.get(self._settings.control_namespace)
        before = {**(home.members if home is not None else {}), **self._members}
        policies: dict[str, ResourceSet | None] = {}

        def resources(namespace: str) -> ResourceSet | None:
            if namespace not in policies:
                own, _ = self._part(namespace, present)
                policies[namespace] = disabling(own or NOTHING, root, self._root)
            return policies[namespace]

        await asyncio.sleep(0)
        items = (self._services.items, self._pods.items, self._namespaces.items)
        self._members = members_of(*items, before, resources)
        self._metrics.addresses.set(len(self._members))
        await asyncio.sleep(0)
        return self._members

    def _peers_documents(self, members: Members, alive: set[str], present: Mapping[str, Present]) -> tuple[Text, ...]:
        """The newest one, or for a while the one before it; and behind it what it is without DestinationRules."""
        if not self._peers or self._clock() - self._peers_since >= self._peers_seconds:
            parts = (self._part(namespace, present)[0] for namespace in sorted(alive))
            rules = client_rules((part for part in parts if part is not None), self._root)
            newest = tuple(self._peers_with(members, each) for each in ((rules, NO_RULES) if rules else (NO_RULES,)))
            if newest != self._peers:
                self._peers, self._peers_since = newest, self._clock()
        return self._peers

    def _peers_with(self, members: Members, rules: ClientRules) -> Text:
        return Text.of(peers_text(members, self._services.items, self._with_detected(), rules))

    def _with_detected(self) -> MeshSettings:
        settings, found = self._settings, self._networks
        if found is None:
            return settings
        return replace(
            settings,
            networks=(*settings.networks, *found.pods),
            service_networks=(*settings.service_networks, *found.services),
        )

    def _wanted(
        self, namespace: str, own: Part | None, root: Part | None, peers: tuple[Text, ...], faults: tuple[str, ...]
    ) -> Wanted:
        policies = None if own is None or root is None else self._policies(namespace, own, root)
        wanted = Wanted(policies, peers[0], problem_text(faults))
        if wanted.size <= MAX_BYTES:
            return wanted
        # Policies decide who is let in. DestinationRules, of which others may have written thousands, go first.
        without = f"its clients follow no DestinationRules: with those the peers alone come to {peers[0].size} bytes"
        smaller = Wanted(policies, peers[-1], problem_text((*faults, f"{without}, and a ConfigMap holds {MAX_BYTES}")))
        if smaller.size <= MAX_BYTES:
            return smaller
        more = f"its documents come to {wanted.size} bytes, and a ConfigMap holds {MAX_BYTES}"
        return Wanted(None, None, problem_text((*faults, more)))

    def _policies(self, namespace: str, own: Part, root: Part) -> Text:
        known = self._texts.get(namespace)
        services = self._service_lines.get(namespace, ()) if own.names_services or root.names_services else ()
        if known is None or known[0] is not own or known[1] is not root or known[2] != services:
            lines = [*own.lines, *(() if own is root else root.lines), *services]
            known = self._texts[namespace] = (own, root, services, Text.of(policies_text(lines)))
        return known[3]

    # -- steps --------------------------------------------------------------------------------------------------------

    def _step(self, namespace: str, wanted: Wanted, found: Present | None) -> Step | None:
        if found is None:
            return Step(
                namespace, "write its policies and peers", partial(self._create, namespace, wanted), wanted.goal
            )
        if found.is_as(wanted):
            return None
        if found.is_immutable:
            act = partial(self._delete, namespace, found)
            return Step(namespace, f"remove a {MESH_CONFIG_MAP} that was made immutable", act, wanted.goal)
        act = partial(self._update, namespace, wanted, found)
        return Step(namespace, "bring its policies and peers up to date", act, wanted.goal)

    async def _create(self, namespace: str, wanted: Wanted) -> None:
        path = resource("configmaps", namespace=namespace)
        self._present.wrote(await self._cluster.create(path, wanted.created(namespace)))
        self._metrics.writes.inc()

    async def _update(self, namespace: str, wanted: Wanted, found: Present) -> None:
        self._present.wrote(await self._cluster.patch(_path(namespace), wanted.change_of(found)))
        self._metrics.writes.inc()

    async def _delete(self, namespace: str, found: Present) -> None:
        await self._cluster.delete(_path(namespace), {"uid": found.uid, "resourceVersion": found.version})

    # -- what is told -------------------------------------------------------------------------------------------------

    def _tell(self, now: Mapping[str, str]) -> None:
        """What keeps which namespace: each once, with the namespaces where it is new."""
        fresh: dict[str, list[str]] = {}
        for namespace, text in now.items():
            if self._told.get(namespace) != text:
                fresh.setdefault(text, []).append(namespace)
        for text, namespaces in fresh.items():
            more = f" (and {len(namespaces) - 1} more namespaces)" if len(namespaces) > 1 else ""
            _log.error("%s%s: what was last possible stays in force: %s", namespaces[0], more, text)
        for namespace in sorted(self._told.keys() - now.keys()):
            _log.info("%s: what kept it from its newest documents is gone", namespace)
        self._told = dict(now)

    def _tell_foreign(self, foreign: frozenset[str]) -> None:
        for namespace in sorted(foreign - self._foreign):
            _log.warning(
                "%s: the ConfigMap %s is not ours (no label %s=%s) and is left alone; pods there get what it says",
                *(namespace, MESH_CONFIG_MAP, MANAGED_BY, OURS),
            )
        self._foreign = foreign


def _lines_by_namespace(services: Mapping[Key, Service]) -> Mapping[str, tuple[str, ...]]:
    lines: defaultdict[str, list[str]] = defaultdict(list)
    for (namespace, name), service in sorted(services.items()):
        if service.selector:
            ports = [{"name": port.name, "port": port.number, "targetPort": port.target} for port in service.ports]
            lines[namespace].append(service_line(namespace, name, service.selector, ports))
    return {namespace: tuple(its) for namespace, its in lines.items()}


def _policies_in(config_map: Object) -> Object:
    """What is read of a ConfigMap of policies: nothing of it by who wrote it, or when."""
    metadata = {name: config_map["metadata"][name] for name in ("name", "namespace")}
    return {"metadata": metadata, "data": config_map.get("data"), "binaryData": config_map.get("binaryData")}


def _path(namespace: str) -> str:
    return resource("configmaps", namespace=namespace, name=MESH_CONFIG_MAP)
