"""What holds in a namespace while something in it cannot be read."""

from __future__ import annotations

import asyncio
from typing import Any

from control.discovery.policies import Part, Reading, read_resource
from control.discovery.policy_book import PolicyBook, Source, disabling
from kube.objects import Key, Object
from mesh.modes import MTLSMode
from mesh.peer_authentication import effective_mode
from mesh.selectors import Workload
from tests.control.discovery.objects import allow, peer_authentication

Items = dict[Key, Object]


class Cluster:
    """AuthorizationPolicies of a cluster, and a book of them that counts what is read."""

    def __init__(self) -> None:
        self.book = PolicyBook()
        self.items: Items = {}
        self.read: list[str] = []

    def put(self, namespace: str, name: str, spec: dict[str, Any]) -> None:
        self.items[namespace, name] = {"metadata": {"namespace": namespace, "name": name}, "spec": spec}

    def update(self) -> None:
        asyncio.run(self.book.update([Source("policies", self.items, self._read)]))

    def names(self, namespace: str, published: tuple[str, ...] | None = None) -> list[str] | None:
        part, _ = self.book.part(namespace, published)
        return None if part is None else [policy.name for policy in part.policies]

    def _read(self, found: Object) -> Reading:
        self.read.append(found["metadata"]["name"])
        return read_resource(found, "security.istio.io/v1", "AuthorizationPolicy")


BROKEN = {"action": "MAYBE"}


def test_a_namespace_without_policies_has_an_empty_part() -> None:
    cluster = Cluster()
    cluster.update()

    assert cluster.book.part("shop", None) == (Part(), ())


def test_while_one_cannot_be_read_what_was_good_last_holds_whole_and_others_go_on() -> None:
    cluster = Cluster()
    cluster.put("shop", "a", allow("api"))
    cluster.update()
    assert cluster.names("shop") == ["a"]
    cluster.put("shop", "b", BROKEN)
    cluster.put("shop", "c", allow("api"))
    cluster.put("bank", "d", allow("api"))
    cluster.update()
    assert (cluster.names("shop"), cluster.names("bank")) == (["a"], ["d"])
    assert "AuthorizationPolicy shop/b" in cluster.book.part("shop", None)[1][0]
    del cluster.items["shop", "b"]
    cluster.update()
    assert cluster.names("shop") == ["a", "c"]


def test_one_that_was_only_just_started_takes_what_was_published_last() -> None:
    first = Cluster()
    first.put("shop", "a", allow("api"))
    first.update()
    lines = tuple(first.book.part("shop", None)[0].lines)  # type: ignore[union-attr]

    cluster = Cluster()
    cluster.put("shop", "b", BROKEN)
    cluster.update()
    assert cluster.names("shop", lines) == ["a"]
    assert cluster.names("shop", None) == ["a"], "it is known from now on"


def test_where_nothing_was_ever_good_there_is_nothing() -> None:
    cluster = Cluster()
    cluster.put("shop", "b", BROKEN)
    cluster.update()

    assert cluster.names("shop") is None
    assert cluster.names("shop", ("{",)) is None


def test_who_did_not_lead_for_a_while_takes_what_another_published() -> None:
    cluster = Cluster()
    cluster.put("shop", "a", allow("api"))
    cluster.update()
    assert cluster.names("shop") == ["a"]
    cluster.book.forget()
    cluster.put("shop", "b", BROKEN)
    cluster.update()

    assert cluster.names("shop", ()) == []


def test_each_object_is_read_once_and_a_part_that_stays_is_the_very_same() -> None:
    cluster = Cluster()
    cluster.put("shop", "a", allow("api"))
    cluster.put("bank", "b", allow("api"))
    cluster.update()
    before = cluster.book.part("shop", None)[0]
    cluster.put("shop", "a", allow("api"))  # written anew, and says the same
    cluster.put("bank", "b", allow("web"))
    cluster.update()

    assert cluster.read == ["a", "b", "b"]
    assert cluster.book.part("shop", None)[0] is before


def test_namespaces_that_are_gone_are_forgotten() -> None:
    cluster = Cluster()
    cluster.put("shop", "a", allow("api"))
    cluster.update()
    cluster.names("shop")
    cluster.book.keep_only(set())
    cluster.put("shop", "a", BROKEN)
    cluster.update()

    assert cluster.names("shop") is None


def part(*specs: dict[str, Any], namespace: str = "shop") -> Part:
    made = []
    for number, spec in enumerate(specs):
        found = {"metadata": {"namespace": namespace, "name": f"p{number}"}, "spec": spec}
        made += read_resource(found, "security.istio.io/v1", "PeerAuthentication").policies
    return Part(tuple(made))


def test_policies_that_disable_nothing_need_not_be_asked() -> None:
    assert disabling(part(peer_authentication("STRICT")), Part(), "root") is None


def test_what_disables_is_asked_together_with_what_is_narrower() -> None:
    mine, root = part(peer_authentication("STRICT", app="web")), part(peer_authentication("DISABLE"), namespace="root")
    resources = disabling(mine, root, "root")

    assert resources is not None
    web, other = Workload("shop", {"app": "web"}, "web"), Workload("shop", {}, "x")
    assert effective_mode(resources, web, 80).mode is MTLSMode.STRICT
    assert effective_mode(resources, other, 80).mode is MTLSMode.DISABLE
