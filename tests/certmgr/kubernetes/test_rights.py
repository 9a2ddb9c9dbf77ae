"""The rights that docs/operations.md tells an administrator to grant: enough, and not one too many."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import pytest

from certmgr.kubernetes import webhook_certificates
from certmgr.kubernetes.parts import cluster_store
from certmgr.revocation import revoke
from kube import reconciler
from kube.client import ApiRefused, Cluster, connect, resource
from mesh import names
from tests.certmgr.kubernetes.authority import issue, serving
from tests.certmgr.kubernetes.documented import documented, granted, moved, path_of, rules
from tests.certmgr.kubernetes.test_service_secrets import annotate, secret_where, whole
from tests.certmgr.kubernetes.test_token_review import requested
from tests.certmgr.kubernetes.test_webhook_certificates import ADMISSION, good, registered, webhook_of
from tests.kube.places import Where
from tests.kube.rig import Place, run, until, utc_now

WEBHOOKS = resource("mutatingwebhookconfigurations", api=ADMISSION)
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class Uses:
    """What is asked of the API server by everybody but the place's administrator, in RBAC's words."""

    def __init__(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: set[tuple[str, str, str]] = set()
        self.forbidden: list[str] = []
        send = Cluster._send

        @contextlib.asynccontextmanager
        async def noted(cluster: Cluster, method: str, path: str, **rest: Any) -> AsyncIterator[Any]:
            async with send(cluster, method, path, **rest) as response:
                if cluster is not place.cluster:
                    self._note(place.namespace, method, path, rest["query"])
                    if response.status in (401, 403):
                        self.forbidden.append(f"{method} {path}")
                yield response

        monkeypatch.setattr(Cluster, "_send", noted)

    def _note(self, own: str, method: str, path: str, query: Any) -> None:
        parts = path.strip("/").split("/")
        parts = parts[2:] if parts[0] == "api" else parts[3:]
        namespace = ""
        if parts[0] == "namespaces" and len(parts) > 2:
            namespace, parts = parts[1], parts[2:]
        if method == "GET":
            verb = "watch" if "watch" in query else "get" if len(parts) > 1 else "list"
        else:
            verb = _VERBS[method]
        self.made.add(("Role" if namespace == own else "ClusterRole", parts[0], verb))


async def in_force(kubeconfig: str, place: Place) -> None:
    """Return when the API server has taken up the rights that were granted a moment ago."""
    ours = {"fieldSelector": f"metadata.name={names.ROOTS_CONFIG_MAP}"}
    async with connect(kubeconfig) as cluster:
        for path, query in (
            (resource("secrets", namespace=place.namespace), {}),
            (resource("configmaps"), ours),
            (resource("serviceaccounts"), {}),
            (WEBHOOKS, {"fieldSelector": f"metadata.name={webhook_of(place)}"}),
        ):
            while True:
                try:
                    await cluster.list(path, query)
                    break
                except ApiRefused as error:
                    assert error.status == 403
                    await asyncio.sleep(0.05)


async def live(place: Place, service: Any, namespace: str) -> None:
    """Make the authority do each of the things that it ever asks the API server for."""
    for _ in range(2):
        await issue(service, await requested(place, "web", names.TOKEN_AUDIENCE))
    await service.change(lambda state: revoke(state, 7, utc_now(), identity="spiffe://cluster.local/ns/shop/sa/web"))

    async def published() -> Any:
        while True:
            found = await place.find("configmaps", namespace, names.ROOTS_CONFIG_MAP)
            if found and found["data"] == {name: text.decode() for name, text in service.bundle().files.items()}:
                return found
            await asyncio.sleep(0.05)

    path = resource("configmaps", namespace=namespace, name=names.ROOTS_CONFIG_MAP)
    await published()
    await place.cluster.patch(path, {"data": {"ca.crt": "edited"}})
    before = await published()
    await place.cluster.patch(path, {"data": {"ca.crt": "edited"}, "immutable": True})
    assert (await published())["metadata"]["uid"] != before["metadata"]["uid"]

    await secret_where(place, namespace, "web-tls", whole)
    await place.cluster.patch(
        resource("secrets", namespace=namespace, name="web-tls"), {"data": {"tls.crt": "ZWRpdGVk"}}
    )
    await secret_where(place, namespace, "web-tls", lambda found: found["data"]["tls.crt"] != "ZWRpdGVk")

    made = await good(place)
    path = resource("secrets", namespace=place.namespace, name=names.WEBHOOK_SECRET)
    await place.cluster.patch(path, {"data": {"tls.crt": ""}})
    await secret_where(place, place.namespace, names.WEBHOOK_SECRET, lambda found: found["data"] != made["data"])
    await good(place)


def test_what_is_documented_is_all_that_the_authority_needs_and_all_of_it_is_used(
    real: Where, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(webhook_certificates, "TAKE_UP_SECONDS", 0.0)
    markers = ("authority", "webhook", "secrets mode")

    async def main() -> Uses:
        async with real() as place, granted(place, *markers) as kubeconfig, registered(place):
            await in_force(kubeconfig, place)
            uses = Uses(place, monkeypatch)
            await place.cluster.create(
                resource("serviceaccounts", namespace=place.namespace), {"metadata": {"name": "web"}}
            )
            namespace = await place.new_namespace(qbitel_injection="enabled")
            await annotate(place, namespace, "web", certificate_secret="web-tls")
            async with cluster_store(kubeconfig, place.namespace) as store:
                # As the leader does with the list of a replica that is gone, when all in it have ended.
                await store.delete("peers-gone", await store.save("peers-gone", b"", None))
            account = dataclasses.replace(place, kubeconfig=kubeconfig)
            everything = {"service_secrets": True, "webhook_name": webhook_of(place)}
            async with serving(account, "pod-1", **everything) as service:
                await until(service.parts.is_leader)
                await live(place, service, namespace)
                await until(lambda: ("Role", "leases", "update") in uses.made)
        return uses

    uses = run(main())
    assert uses.forbidden == []
    assert uses.made == {rule for marker in markers for rule in rules(documented(marker))}


def test_the_namespace_s_other_readers_are_not_let_in_by_it(real: Where) -> None:
    """What the account may not do with names that are not ours, and outside its namespace."""

    async def main() -> None:
        async with real() as place, granted(place, "authority") as kubeconfig, connect(kubeconfig) as cluster:
            other = await place.new_namespace()
            body = {"metadata": {"name": "theirs", "namespace": other}}
            await place.cluster.create(resource("configmaps", namespace=other), body)
            refused = []
            for plural, path in (
                ("secrets", resource("secrets", namespace=other)),
                ("all secrets", resource("secrets")),
                ("configmaps", resource("configmaps", namespace=other)),
                ("accounts", resource("serviceaccounts")),
                ("pods", resource("pods", namespace=place.namespace)),
            ):
                with pytest.raises(ApiRefused) as error:
                    await cluster.list(path)
                assert error.value.status == 403
                refused.append(plural)
            for change in (
                cluster.patch(resource("configmaps", namespace=other, name="theirs"), {"data": {"a": "b"}}),
                cluster.delete(resource("configmaps", namespace=other, name="theirs"), {}),
                cluster.get(resource("leases", namespace=place.namespace, name="x", api="apis/coordination.k8s.io/v1")),
            ):
                with pytest.raises(ApiRefused) as error:
                    await change
                assert error.value.status == 403

    run(main())


def test_the_objects_of_the_installation_by_hand_are_good_ones(real: Where) -> None:
    async def main() -> None:
        async with real() as place:
            objects = [each for each in moved(documented("none"), place.namespace) if "kind" in each]
            assert [each["kind"] for each in objects] == ["Service", "StatefulSet"]
            for each in objects:
                await place.cluster.create(path_of(each), each, dry_run=True)
            (pod,) = [each for each in documented("none") if "volumes" in each]
            container = {"name": "web", "image": "registry.invalid/none"}
            await place.cluster.create(
                resource("serviceaccounts", namespace=place.namespace), {"metadata": {"name": "web"}}
            )
            spec = {
                **pod,
                "serviceAccountName": "web",
                "containers": [container],
                "automountServiceAccountToken": False,  # old clusters make that token some time after the account
            }
            await place.cluster.create(
                resource("pods", namespace=place.namespace), {"metadata": {"name": "web"}, "spec": spec}, dry_run=True
            )

    run(main())
