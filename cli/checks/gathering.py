"""Finding out about a cluster: what its API server is asked. Nothing is changed; pods are for trial only.

What cannot be found out is a fact, too: a reason, with which the checks that need it are skipped.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import datetime
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from cli.checks import roles, scraping
from cli.checks.asking import Asking, as_fact, together
from cli.checks.before import rights_wanted
from cli.checks.facts import (
    Clock,
    ClusterFacts,
    DryRun,
    Fact,
    MeshMap,
    Object,
    Objects,
    Policy,
    Published,
    Right,
    Scrape,
    Serving,
    full_name,
    known,
    last_change,
    mesh_namespaces,
    name_of,
    namespace_of,
    unknown,
)
from cli.checks.findings import Group, Unknown
from cli.checks.trial import try_pod
from injector import pods
from injector.config import IGNORED_NAMESPACES
from kube.client import EVERYTHING, METADATA_LIST, ApiRefused, ApiUnavailable, Cluster, Query, connect, resource
from mesh import names

Now = Callable[[], datetime.datetime]

# More pods than that are not read: 5,000 take some 100 MB, and who has more asks namespace by namespace.
MOST_PODS: Final = 5_000
# Namespaces whose policies are read: each may have 1 MiB.
_MOST_TEXTS: Final = 20
_MOST_ROLES: Final = 100
_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
_OURS: Final = "qbitel"
_APPS, _RBAC = "apis/apps/v1", "apis/rbac.authorization.k8s.io/v1"
_POLICIES: Final = (
    ("PeerAuthentication", "security.istio.io", "peerauthentications"),
    ("AuthorizationPolicy", "security.istio.io", "authorizationpolicies"),
    ("DestinationRule", "networking.istio.io", "destinationrules"),
    ("Sidecar", "networking.istio.io", "sidecars"),
    ("EnvoyFilter", "networking.istio.io", "envoyfilters"),
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be found out, and of whom. `sample` is how many sidecars are asked for their metrics."""

    groups: Collection[Group]
    control_namespace: str = names.CONTROL_NAMESPACE
    asked: frozenset[str] = frozenset()
    sample: int = 50


async def gather(kubeconfig: str | None, context: str | None, wanted: Wanted, now: Now) -> ClusterFacts:
    """Find out what checks of `wanted.groups` need. Raises UserError for a kubeconfig that cannot be used."""
    async with connect(kubeconfig, "qbitel-check", context=context) as cluster:
        return await facts_of(cluster, wanted, now)


async def facts_of(cluster: Cluster, wanted: Wanted, now: Now) -> ClusterFacts:
    """As `gather`, of a cluster that one is connected to."""
    facts = ClusterFacts(now=now(), control_namespace=wanted.control_namespace, asked=wanted.asked)
    try:
        version = await cluster.get("/version")
    except (ApiUnavailable, ApiRefused) as error:
        return _unreachable(facts, str(error))
    gathering = _Gathering(cluster, wanted, now)
    facts = replace(facts, version=known(version))
    facts = replace(facts, **await gathering.basics())
    absent = _is_absent(wanted.control_namespace, facts)
    if absent:
        facts = _without(facts, f"the mesh is not installed: there is no namespace {wanted.control_namespace}")
    for stage, groups in gathering.stages():
        if groups & set(wanted.groups) and not (absent and Group.BEFORE not in groups):
            facts = replace(facts, **await stage(facts))
    return facts


def _unreachable(facts: ClusterFacts, reason: str) -> ClusterFacts:
    return replace(_without(facts, "the API server does not answer (check api-reachable)"), unreachable=reason)


def _is_absent(namespace: str, facts: ClusterFacts) -> bool:
    """Whether it is known that there is no such namespace."""
    return facts.namespaces.found is not None and namespace not in map(name_of, facts.namespaces.found)


def _without(facts: ClusterFacts, reason: str) -> ClusterFacts:
    """`facts` with `reason` for each that is not known."""
    missing = [one.name for one in fields(facts) if isinstance(fact := getattr(facts, one.name), Fact) and fact.reason]
    nothing: dict[str, Any] = dict.fromkeys(missing, unknown(reason))
    return replace(facts, **nothing)


_Found = dict[str, Any]  # fields of ClusterFacts


class _Gathering:
    """One run: what is asked at the same time, and how often at once."""

    def __init__(self, cluster: Cluster, wanted: Wanted, now: Now) -> None:
        self._cluster = cluster
        self._wanted = wanted
        self._now = now
        self._home = wanted.control_namespace
        self._asking = Asking(cluster)

    def stages(self) -> Sequence[tuple[Callable[[ClusterFacts], Awaitable[_Found]], set[Group]]]:
        """What is found out beside the basics, in order, and for which groups of checks."""
        return (
            (self._rights, {Group.BEFORE}),
            (self._control, {Group.CONTROL, Group.TRUST, Group.DATA}),
            (self._roles, {Group.CONTROL}),
            (self._webhook, {Group.WEBHOOK, Group.DATA}),
            (self._bundles, {Group.TRUST, Group.DATA}),
            (self._told, {Group.TRUST}),
            (self._data_plane, {Group.DATA}),
            (self._scraped, {Group.DATA}),
        )

    async def basics(self) -> _Found:
        """The cluster itself."""
        dns = {"labelSelector": "k8s-app=kube-dns"}
        return await together(
            clock=as_fact(self._clock()),
            served=as_fact(self._served()),
            nodes=self._asking.listed(resource("nodes")),
            namespaces=as_fact(self._namespaces()),
            webhooks=self._asking.listed(
                resource("mutatingwebhookconfigurations", api="apis/admissionregistration.k8s.io/v1")
            ),
            daemon_sets=self._asking.listed(resource("daemonsets", api=_APPS)),
            dns=self._asking.listed(resource("services", namespace="kube-system"), dns),
        )

    async def _clock(self) -> Clock:
        before = self._now()
        said = await self._cluster.date()
        return Clock(before, said, self._now())

    async def _served(self) -> frozenset[str]:
        groups = await self._cluster.get("/apis")
        core = await self._cluster.get("/api/v1")
        versions = [
            str(version.get("groupVersion"))
            for group in pods.listed(groups, "groups")
            for version in pods.listed(group, "versions")
        ]
        return frozenset([*versions, "v1", *(f"v1/{one.get('name')}" for one in pods.listed(core, "resources"))])

    async def _namespaces(self) -> Objects:
        try:
            found, _ = await self._cluster.list(resource("namespaces"))
        except ApiRefused:
            if not self._wanted.asked:
                raise
            # Who may not see all of them may see his own.
            return [await self._cluster.get(resource("namespaces", name=name)) for name in sorted(self._wanted.asked)]
        return found

    async def _rights(self, _facts: ClusterFacts) -> _Found:
        async def rights() -> Mapping[Right, bool]:
            wanted = rights_wanted(self._home)
            return dict(zip(wanted, await asyncio.gather(*map(self._asking.may, wanted)), strict=True))

        return await together(rights=as_fact(rights()))

    async def _control(self, facts: ClusterFacts) -> _Found:
        home = self._home
        served = facts.served.found or frozenset()
        policy = "apis/policy/v1" if "policy/v1" in served else "apis/policy/v1beta1"  # until Kubernetes 1.21
        return await together(
            workloads=as_fact(self._workloads()),
            control_pods=self._asking.listed(resource("pods", namespace=home)),
            services=self._asking.listed(resource("services", namespace=home)),
            endpoints=self._asking.listed(resource("endpoints", namespace=home)),
            budgets=self._asking.listed(resource("poddisruptionbudgets", namespace=home, api=policy)),
            leases=self._asking.listed(resource("leases", namespace=home, api="apis/coordination.k8s.io/v1")),
        )

    async def _workloads(self) -> Objects:
        found: list[Object] = []
        for kind, plural in (("Deployment", "deployments"), ("StatefulSet", "statefulsets")):
            items, _ = await self._cluster.list(resource(plural, namespace=self._home, api=_APPS))
            found += [{**item, "kind": kind} for item in items]  # a list's items do not say it
        return found

    async def _roles(self, _facts: ClusterFacts) -> _Found:
        found = await together(
            cluster_bindings=self._asking.listed(resource("clusterrolebindings", api=_RBAC)),
            roles=self._asking.listed(resource("roles", namespace=self._home, api=_RBAC)),
            bindings=self._asking.listed(resource("rolebindings", namespace=self._home, api=_RBAC)),
        )

        async def bound() -> Objects:
            bindings = [*found["cluster_bindings"].value, *found["bindings"].value]
            wanted = sorted(roles.roles_bound(bindings, self._home))[:_MOST_ROLES]
            paths = [resource("clusterroles", name=name, api=_RBAC) for name in wanted]
            present = await asyncio.gather(*map(self._asking.present, paths))
            return [role for role in present if role is not None]

        return {**found, **await together(cluster_roles=as_fact(bound()))}

    async def _webhook(self, facts: ClusterFacts) -> _Found:
        return await together(
            serving=as_fact(self._serving()),
            inside=as_fact(self._inside(facts)),
            outside=as_fact(self._outside(facts)),
        )

    async def _serving(self) -> Serving:
        path = resource("secrets", namespace=self._home, name=names.WEBHOOK_SECRET)
        try:
            data = pods.texts(await self._cluster.get(path), "data")
            certificate, authority = (
                base64.b64decode(data[key], validate=True) for key in (names.CERTIFICATE_FILE, names.ROOTS_FILE)
            )
        except (KeyError, binascii.Error, ValueError):
            raise Unknown(f"the Secret {names.WEBHOOK_SECRET} has no certificate and authority") from None
        return Serving(certificate, authority)

    async def _inside(self, facts: ClusterFacts) -> DryRun:
        meshed = [one for one in facts.mesh_namespaces if one not in self._left_out]
        if not meshed:
            raise Unknown(f"no namespace is of the mesh (kubectl label namespace NAME {names.NAMESPACE_LABEL}=enabled)")
        return await try_pod(self._cluster, meshed[0])

    async def _outside(self, facts: ClusterFacts) -> DryRun:
        meshed = set(mesh_namespaces(facts.namespaces.value))
        # `default` first: nothing special holds there, as a rule.
        others = sorted((name_of(one) for one in facts.namespaces.value), key=lambda one: (one != "default", one))
        found = next((one for one in others if one not in meshed and one not in self._left_out), None)
        if found is None:
            raise Unknown("every namespace is of the mesh")
        return await try_pod(self._cluster, found)

    @property
    def _left_out(self) -> frozenset[str]:
        return IGNORED_NAMESPACES | {self._home}

    async def _bundles(self, facts: ClusterFacts) -> _Found:
        return await together(bundles=as_fact(self._published(facts)))

    async def _published(self, facts: ClusterFacts) -> Mapping[str, Published]:
        found: dict[str, Published] = {}
        shared: dict[str, str] = {}  # thousands of namespaces have the same text
        async for one in self._config_maps(names.ROOTS_CONFIG_MAP, facts):
            data = {key: shared.setdefault(text, text) for key, text in pods.texts(one, "data").items()}
            found[namespace_of(one)] = Published(_is_ours(one), data)
        return found

    async def _config_maps(self, name: str, facts: ClusterFacts) -> AsyncIterator[Object]:
        if facts.asked:
            for namespace in facts.mesh_namespaces:
                if one := await self._asking.present(resource("configmaps", namespace=namespace, name=name)):
                    yield one
            return
        query = {"fieldSelector": f"metadata.name={name}"}
        async with contextlib.aclosing(self._cluster.pages(resource("configmaps"), query)) as pages:
            async for page, _ in pages:
                for one in page:
                    yield one

    async def _told(self, facts: ClusterFacts) -> _Found:
        return await together(mesh_maps=as_fact(self._mesh_maps(facts)), policies=as_fact(self._policies(facts)))

    async def _mesh_maps(self, facts: ClusterFacts) -> Mapping[str, MeshMap]:
        query = {"fieldSelector": f"metadata.name={names.MESH_CONFIG_MAP}"}
        found: dict[str, MeshMap] = {}
        for path in self._places("configmaps", "api/v1", facts):
            items, _ = await self._cluster.list(path, query, accept=METADATA_LIST)
            found |= {namespace_of(one): MeshMap(_is_ours(one), last_change(one)) for one in items}
        for namespace in [one for one in facts.mesh_namespaces if one in found][:_MOST_TEXTS]:
            path = resource("configmaps", namespace=namespace, name=names.MESH_CONFIG_MAP)
            if one := await self._asking.present(path):
                found[namespace] = replace(found[namespace], texts=pods.texts(one, "data"))
        return found

    async def _policies(self, facts: ClusterFacts) -> Sequence[Policy]:
        labelled = {"labelSelector": f"{names.POLICY_LABEL}=true"}
        kinds: list[tuple[str, str, str, Query]] = [("ConfigMap", "configmaps", "api/v1", labelled)]
        for kind, group, plural in _POLICIES:
            versions = sorted(one for one in facts.served.value if one.startswith(f"{group}/"))
            kinds += [(kind, plural, f"apis/{versions[0]}", EVERYTHING)] if versions else []
        found: list[Policy] = []
        for kind, plural, api, query in kinds:
            for path in self._places(plural, api, facts):
                try:
                    items, _ = await self._cluster.list(path, query, accept=METADATA_LIST)
                except ApiRefused as error:
                    if error.status != 404:  # of Istio's groups a cluster may have some kinds alone
                        raise
                    continue
                found += [Policy(kind, namespace_of(one), name_of(one), last_change(one)) for one in items]
        return found

    def _places(self, plural: str, api: str, facts: ClusterFacts) -> list[str]:
        """Where objects are looked for: everywhere, or in the namespaces that are asked about."""
        if not facts.asked:
            return [resource(plural, api=api)]
        return [resource(plural, namespace=one, api=api) for one in sorted({*facts.asked, self._home})]

    async def _data_plane(self, facts: ClusterFacts) -> _Found:
        return await together(
            pods=as_fact(self._pods(facts)),
            mesh_services=as_fact(self._of_mesh("services", "api/v1", facts)),
            network_policies=as_fact(self._of_mesh("networkpolicies", "apis/networking.k8s.io/v1", facts)),
        )

    async def _pods(self, facts: ClusterFacts) -> Objects:
        asking: list[Query] = [{"labelSelector": f"{names.INJECT_KEY}={word}"} for word in ("true", "enabled")]
        everywhere = [] if facts.asked else [(resource("pods"), one) for one in asking]
        within = [(resource("pods", namespace=one), EVERYTHING) for one in facts.mesh_namespaces]
        found: dict[str, Object] = {}
        for page in await asyncio.gather(*(self._bounded(*place) for place in (*everywhere, *within))):
            found |= {full_name(one): one for one in page}
        return list(found.values())[:MOST_PODS]

    async def _of_mesh(self, plural: str, api: str, facts: ClusterFacts) -> Objects:
        paths = [resource(plural, namespace=one, api=api) for one in facts.mesh_namespaces]
        return [one for page in await asyncio.gather(*map(self._bounded, paths)) for one in page]

    async def _bounded(self, path: str, query: Query = EVERYTHING) -> Objects:
        return await self._asking.bounded(path, query, most=MOST_PODS)

    async def _scraped(self, facts: ClusterFacts) -> _Found:
        async def scrapes() -> Mapping[str, Scrape]:
            sample = scraping.sample_of(facts.pods.value, self._wanted.sample)
            answers = await asyncio.gather(*map(self._scraped_once, sample))
            return {full_name(pod): answer for pod, answer in zip(sample, answers, strict=True)}

        return await together(scrapes=as_fact(scrapes()))

    async def _scraped_once(self, pod: Object) -> Scrape:
        async with self._asking.turns:
            return await scraping.scrape(self._cluster, pod)


def _is_ours(config_map: Object) -> bool:
    return pods.labels_of(config_map).get(_MANAGED_BY) == _OURS
