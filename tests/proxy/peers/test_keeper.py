"""The document and the names' addresses, kept: what is new is taken up whole, what is broken changes nothing."""

from __future__ import annotations

import asyncio
import itertools
import logging

import pytest
from prometheus_client import CollectorRegistry

from mesh.documents import read_documents
from mesh.errors import UserError
from mesh.resources import ResourceSet
from mesh.selectors import Workload
from pqtls import PROFILES
from proxy.config import Direction, Endpoint, ListenerConfig, ProxyConfig, networks
from proxy.peers import keeper, rules
from proxy.peers.keeper import RESOLVE_SECONDS, PeersKeeper, read_document
from proxy.peers.metrics import PeerMetrics
from proxy.peers.router import Router
from proxy.routes import Mode
from tests.proxy.peers.groups import Clock

HEAD = "apiVersion: qbitel.io/v1\nkind: Peers\npeers:\n"
ENTRY = HEAD + "- name: a\n  mode: {mode}\n  cidrs: [10.0.0.0/8]\n"
NAMED = HEAD + "- name: a\n  mode: require\n  hosts: [a.svc]\n"


def config_of(pki, path, **more) -> ProxyConfig:
    return ProxyConfig(
        files=pki.files("web"),
        listeners=(ListenerConfig(direction=Direction.OUTBOUND, bind=Endpoint("127.0.0.1", 0)),),
        profiles=(PROFILES["qbitel"],),
        peers_file=path,
        **more,
    )


class Rig:
    """A keeper whose names are answered by hand."""

    def __init__(self, pki, path) -> None:
        self.clock = Clock()
        self.registry = CollectorRegistry()
        self.router = Router((), PeerMetrics(self.registry), now=self.clock, random=lambda: 0.0)
        self.answers: dict[str, object] = {}
        self.asked: list[str] = []
        self.path = path
        self._writes = itertools.count(1)
        self.keeper = PeersKeeper(config_of(pki, path), path, self.router, self._resolve)

    async def _resolve(self, name: str) -> tuple[str, ...]:
        self.asked.append(name)
        found = self.answers.get(name, OSError("no such host"))
        if isinstance(found, asyncio.Event):
            await found.wait()
            return ()
        if isinstance(found, OSError):
            raise found
        return found

    def write(self, text: str) -> None:
        """As `kubectl` and editors do: another file in its place."""
        new = self.path.with_name(f"new-{next(self._writes)}")
        new.write_text(text)
        new.replace(self.path)

    async def tended(self) -> None:
        """Tend, and let what began by it end."""
        self.keeper.tend()
        await self.keeper._rereading.settled()
        if self.keeper._resolving is not None:
            await self.keeper._resolving

    async def follows(self, found: ResourceSet) -> None:
        """The folder has these, and what begins by it ends."""
        self.keeper.follow(found, CLIENT, "cluster.local")
        await self.tended()

    def mode(self, host: str) -> Mode:
        return self.router.way(Endpoint(host, 80)).mode

    def reloads(self, result: str) -> float:
        return self.registry.get_sample_value("qbitel_peers_reloads_total", {"result": result}) or 0


@pytest.fixture
def kept(run, pki, tmp_path):
    """Run a scenario with a keeper of a document."""

    def go(text, scenario):
        path = tmp_path / "peers.yaml"
        path.write_text(text)

        async def main():
            rig = Rig(pki, path)
            try:
                await scenario(rig)
            finally:
                await rig.keeper.close()

        run(main())

    return go


def test_the_document_holds_from_the_start_and_a_changed_one_soon(kept, caplog):
    caplog.set_level(logging.INFO, "qbitel.proxy")

    async def scenario(rig):
        assert rig.mode("10.0.0.1") is Mode.REQUIRE
        rig.write(ENTRY.format(mode="prefer"))
        await rig.tended()
        assert rig.mode("10.0.0.1") is Mode.PREFER
        assert rig.registry.get_sample_value("qbitel_peers_generation") == 2
        await rig.tended()
        assert rig.reloads("ok") == 2  # what has not changed is not read
        rig.keeper.refresh()
        await rig.tended()
        assert rig.reloads("ok") == 3

    kept(ENTRY.format(mode="require"), scenario)
    assert "peers in use (generation 2): 1 entries" in caplog.text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (ENTRY.format(mode="sometimes"), "peers.yaml:5: Peers: peers[0].mode"),
        ("", "no document in it"),
        (HEAD + "- name: a\n  mode: require\n  cidrs: [10.0.0.0/8]\n  profile: compat\n", "name it in --profile too"),
    ],
)
def test_a_broken_document_changes_nothing_and_is_said_once(kept, caplog, text, says):
    async def scenario(rig):
        rig.write(text)
        await rig.tended()
        rig.keeper.refresh()
        await rig.tended()
        assert rig.mode("10.0.0.1") is Mode.REQUIRE
        assert rig.reloads("failed") == 1
        rig.path.unlink()
        await rig.tended()
        assert rig.mode("10.0.0.1") is Mode.REQUIRE
        rig.write(ENTRY.format(mode="off"))
        await rig.tended()
        assert rig.mode("10.0.0.1") is Mode.OFF

    kept(ENTRY.format(mode="require"), scenario)
    assert caplog.text.count(says) == 1
    assert "the last good one stays in use" in caplog.text


def test_a_bug_while_reading_changes_nothing(kept, caplog, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError

    async def scenario(rig):
        monkeypatch.setattr(keeper, "read_peers", broken)
        rig.write(ENTRY.format(mode="off"))
        await rig.tended()
        assert rig.mode("10.0.0.1") is Mode.REQUIRE

    kept(ENTRY.format(mode="require"), scenario)
    assert "a bug kept the peers document from being read" in caplog.text


def test_a_document_that_could_not_be_read_once_is_tried_again_though_the_file_stays_as_it_is(
    kept, caplog, monkeypatch
):
    def refused(path, **_):
        raise UserError(f"cannot read {path}: Too many open files")

    async def scenario(rig):
        rig.write(ENTRY.format(mode="off"))
        with monkeypatch.context() as meanwhile:
            meanwhile.setattr(keeper, "read_file", refused)
            await rig.tended()
            await rig.tended()
        assert rig.mode("10.0.0.1") is Mode.REQUIRE
        assert rig.reloads("failed") == 1
        await rig.tended()
        assert rig.mode("10.0.0.1") is Mode.OFF
        await rig.tended()
        assert rig.reloads("ok") == 2

    kept(ENTRY.format(mode="require"), scenario)
    assert caplog.text.count("Too many open files") == 1


def test_a_document_that_was_read_and_is_wrong_is_not_read_again_until_it_changes(kept, monkeypatch):
    async def scenario(rig):
        rig.write(ENTRY.format(mode="sometimes"))
        await rig.tended()
        reads = []
        monkeypatch.setattr(keeper, "read_file", lambda path, **_: reads.append(path))
        await rig.tended()
        assert reads == []

    kept(ENTRY.format(mode="require"), scenario)


def test_names_are_asked_before_traffic_is_taken_and_again_later(kept):
    async def scenario(rig):
        rig.answers["a.svc"] = ("10.0.0.7",)
        await rig.keeper.load()
        assert rig.mode("10.0.0.7") is Mode.REQUIRE
        rig.answers["a.svc"] = ("10.0.0.8",)
        await rig.tended()
        assert rig.asked == ["a.svc"]  # not yet
        rig.clock.time += RESOLVE_SECONDS
        await rig.tended()
        assert rig.mode("10.0.0.8") is rig.mode("10.0.0.7") is Mode.REQUIRE  # the old one is kept for a while

    kept(NAMED, scenario)


def test_connections_are_balanced_over_the_addresses_that_a_name_has_and_not_over_those_that_it_had(kept):
    async def scenario(rig):
        rig.answers["a.svc"] = ("10.0.0.7", "10.0.0.8")
        await rig.keeper.load()
        way = rig.router.way(Endpoint("10.0.0.7", 80))
        assert {way.group.choose().address for _ in range(4)} == {"10.0.0.7", "10.0.0.8"}
        rig.answers["a.svc"] = ("10.0.0.8", "10.0.0.9")
        rig.clock.time += RESOLVE_SECONDS
        await rig.tended()
        way = rig.router.way(Endpoint("10.0.0.7", 80))  # dialled by whoever keeps answers for long: still the name's
        assert way.mode is Mode.REQUIRE
        assert way.is_balanced
        assert {way.group.choose().address for _ in range(4)} == {"10.0.0.8", "10.0.0.9"}
        rig.write(NAMED + "  balancing: roundRobin\n  connectTimeout: 1s\n")
        await rig.tended()
        assert {way.group.choose().address for _ in range(4)} == {"10.0.0.8", "10.0.0.9"}
        del rig.answers["a.svc"]
        rig.clock.time += RESOLVE_SECONDS
        await rig.tended()
        assert {way.group.choose().address for _ in range(4)} == {"10.0.0.8", "10.0.0.9"}

    kept(NAMED + "  balancing: roundRobin\n", scenario)


def test_a_resolver_that_fails_takes_nothing_away_and_is_said_once(kept, caplog):
    async def scenario(rig):
        rig.answers["a.svc"] = ("10.0.0.7",)
        await rig.keeper.load()
        del rig.answers["a.svc"]
        for _ in range(3):
            rig.clock.time += RESOLVE_SECONDS
            await rig.tended()
        assert rig.mode("10.0.0.7") is Mode.REQUIRE

    kept(NAMED, scenario)
    assert caplog.text.count("a.svc, a host of the peers document, has no address (no such host)") == 1


def test_new_names_of_a_new_document_are_asked_at_once(kept):
    async def scenario(rig):
        rig.answers["a.svc"] = ("10.0.0.7",)
        rig.write(NAMED)
        await rig.tended()
        await rig.tended()
        assert rig.mode("10.0.0.7") is Mode.REQUIRE
        rig.write(ENTRY.format(mode="off"))
        await rig.tended()
        assert rig.mode("10.0.0.7") is Mode.OFF

    kept(ENTRY.format(mode="off"), scenario)


def test_a_name_without_an_answer_does_not_keep_the_answers_of_others_from_being_used(kept, monkeypatch):
    monkeypatch.setattr(keeper, "_PUBLISH_SECONDS", 0.01)

    async def scenario(rig):
        rig.answers |= {"a.svc": ("10.0.0.7",), "b.svc": ("10.0.0.8",)}
        await rig.keeper.load()
        published = []
        take_addresses = rig.router.take_addresses
        monkeypatch.setattr(rig.router, "take_addresses", lambda *found: published.append(take_addresses(*found)))
        silent = asyncio.Event()
        rig.answers |= {"a.svc": silent, "b.svc": ("10.0.0.9",)}
        rig.clock.time += RESOLVE_SECONDS
        rig.keeper.tend()
        async with asyncio.timeout(5):
            while rig.mode("10.0.0.9") is not Mode.REQUIRE:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert len(published) == 1  # and not again while nothing comes
        silent.set()
        await rig.tended()

    kept(HEAD + "- name: a\n  mode: require\n  hosts: [a.svc, b.svc]\n", scenario)


def test_a_resolver_that_never_answers_does_not_keep_the_sidecar_from_starting(kept, monkeypatch):
    monkeypatch.setattr(keeper, "_FIRST_ANSWERS", 0.01)

    async def scenario(rig):
        rig.answers["a.svc"] = asyncio.Event()
        await rig.keeper.load()
        assert rig.asked == ["a.svc"]

    kept(NAMED, scenario)


@pytest.mark.parametrize(("names", "seconds"), [(0, 5), (20, 5), (40, 10), (1000, 30)])
def test_many_names_are_asked_for_less_often(names, seconds):
    assert keeper.resolve_seconds(names) == seconds


def test_the_systems_resolver_gives_addresses(run):
    assert "127.0.0.1" in run(keeper._system_resolve("localhost"))


def test_what_the_short_form_requires_no_document_makes_less_of(pki, tmp_path):
    path = tmp_path / "peers.yaml"
    path.write_text(ENTRY.format(mode="prefer"))
    with pytest.raises(UserError, match=r"a sets mode prefer for 10\.0\.0\.0/8, and --mesh 10\.0\.0\.0/8 requires"):
        read_document(config_of(pki, path, mesh=networks(["10.0.0.0/8"])), path)


@pytest.mark.parametrize(("mesh", "names"), [("10.0.0.0/8", ["a"]), ("10.0.0.0/9", ["a", "--mesh 10.0.0.0/9"])])
def test_the_short_form_stands_beside_the_document(pki, tmp_path, mesh, names):
    path = tmp_path / "peers.yaml"
    path.write_text(ENTRY.format(mode="require"))
    found = read_document(config_of(pki, path, mesh=networks([mesh])), path).entries
    assert [entry.name for entry in found] == names


def test_a_tunnel_port_needs_tunnels(pki, tmp_path):
    path = tmp_path / "peers.yaml"
    path.write_text(ENTRY.format(mode="require") + "  tunnelPort: 15008\n")
    with pytest.raises(UserError, match="of no use with --no-tunnels"):
        read_document(config_of(pki, path, tunnels=False), path)


def test_a_document_that_is_not_there_is_said_with_its_flag(pki, tmp_path):
    with pytest.raises(UserError, match="does not exist; --peers names"):
        read_document(config_of(pki, tmp_path / "none"), tmp_path / "none")


SERVICE = HEAD + "- name: a\n  mode: require\n  services: {orders.shop.svc.cluster.local: [10.0.0.1]}\n"
RULE = """---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  host: orders.shop.svc.cluster.local
  trafficPolicy: {{connectionPool: {{tcp: {{maxConnections: {most}}}}}}}
"""
CLIENT = Workload("front", {}, "web")


def resources(*most: int, namespace: str = "front", annotations: str = "{}") -> ResourceSet:
    text = "".join(RULE.format(name=f"r{number}", namespace=namespace, most=number) for number in most)
    text = text.replace("name: r", f"annotations: {annotations}, name: r")
    found = ResourceSet.of(read_documents(text.encode(), "rules.yaml")[0])
    assert found.errors == ()
    return found


def limit(rig) -> tuple[int | None, str]:
    entry = rig.router.way(Endpoint("10.0.0.1", 80)).entry
    return entry.max_connections, entry.rule


def test_the_rules_of_the_folder_hold_when_they_come_and_stay_when_the_document_is_replaced(kept, caplog):
    caplog.set_level(logging.INFO, "qbitel.proxy")

    async def scenario(rig):
        assert limit(rig) == (None, "")
        await rig.follows(resources(7))
        assert limit(rig) == (7, "DestinationRule front/r7")
        group = rig.router.way(Endpoint("10.0.0.1", 80)).group
        rig.write(SERVICE + "  connectTimeout: 1s\n")
        await rig.tended()
        assert limit(rig) == (7, "DestinationRule front/r7")
        # What is counted goes on.
        assert rig.router.way(Endpoint("10.0.0.1", 80)).group is group
        (shown,) = rig.router.describe()["entries"]
        assert (shown["rule"], shown["max_connections"]) == ("DestinationRule front/r7", 7)
        assert (shown["connect_timeout"], shown["max_pending"], shown["balancing"]) == (1, None, None)
        await rig.follows(resources())
        assert limit(rig) == (None, "")

    kept(SERVICE, scenario)
    assert "DestinationRules hold for 1 of the 1 entries" in caplog.text


def test_policies_that_change_without_their_rules_change_nothing_here(kept):
    async def scenario(rig):
        await rig.follows(resources(7))
        way = rig.router.way(Endpoint("10.0.0.1", 80))
        await rig.follows(resources(7))
        assert rig.router.way(Endpoint("10.0.0.1", 80)) is way
        await rig.follows(resources(8))
        assert rig.router.way(Endpoint("10.0.0.1", 80)) is not way

    kept(SERVICE, scenario)


def test_rules_that_are_there_at_the_start_hold_before_traffic_is_taken(kept):
    async def scenario(rig):
        rig.keeper.follow(resources(7), CLIENT, "cluster.local")
        await rig.keeper.load()
        assert limit(rig) == (7, "DestinationRule front/r7")

    kept(SERVICE, scenario)


def test_the_rules_of_the_document_hold_beside_those_of_the_folder_once_that_was_read(kept):
    published = RULE.format(name="theirs", namespace="shop", most=3)

    async def scenario(rig):
        assert limit(rig) == (None, "")
        await rig.follows(resources())
        assert limit(rig) == (3, "DestinationRule shop/theirs")
        rig.write(SERVICE + RULE.format(name="theirs", namespace="shop", most=4))
        await rig.tended()
        assert limit(rig) == (4, "DestinationRule shop/theirs")

    kept(SERVICE + published, scenario)


def test_rules_that_make_too_much_are_not_followed_and_change_nothing_else(kept, caplog, monkeypatch):
    async def scenario(rig):
        await rig.follows(resources(7))
        monkeypatch.setattr(rules, "MAX_MADE", 1)
        many = SERVICE.replace("[10.0.0.1]", "[10.0.0.1], b.shop.svc.cluster.local: [10.0.0.2]")
        rig.write(many)
        await rig.tended()
        assert "was not reloaded, the last good one stays in use: the DestinationRules make" in caplog.text
        assert rig.reloads("failed") == 1
        assert limit(rig) == (7, "DestinationRule front/r7")
        await rig.follows(resources())  # and the document holds
        assert rig.router.way(Endpoint("10.0.0.2", 80)).entry is not None
        await rig.follows(resources(8))
        assert rig.reloads("failed") == 2
        assert limit(rig) == (None, "")

    kept(SERVICE, scenario)


def test_a_profile_that_a_rule_wants_and_we_do_not_speak_is_said(kept, caplog):
    async def scenario(rig):
        await rig.follows(resources(7, annotations="{qbitel.io/profile: cnsa2}"))

    kept(SERVICE, scenario)
    assert "DestinationRule front/r7 (and 0 more) wants a profile that --profile does not name" in caplog.text
