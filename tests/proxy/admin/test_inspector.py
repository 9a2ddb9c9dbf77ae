"""What a worker says of itself."""

from __future__ import annotations

import asyncio
import datetime
import json
import logging

import pytest

from proxy.admin.inspector import MAX_PAGE, Inspector
from proxy.config import Direction, Endpoint
from proxy.credentials import utc_now
from proxy.life import Stop
from proxy.metrics import Metrics
from proxy.record import ConnectionRecord, Sinks
from proxy.registry import LiveConnection, Registry


class Source:
    """Credentials of a worker."""

    def __init__(self, bundle) -> None:
        self.current = bundle


@pytest.fixture
def inspect(run, pki):
    """Run a scenario(inspector, registry, stop) in a loop."""

    def go(scenario):
        async def main():
            registry, stop = Registry(), Stop(asyncio.get_running_loop())
            inspector = Inspector(registry, Source(pki.bundle("web")), utc_now, lambda: "no policies", stop)
            return await scenario(inspector, registry, stop)

        return run(main())

    return go


def connections(registry: Registry, count: int) -> None:
    sinks = Sinks(Metrics(), [], utc_now)
    for number in range(count):
        record = ConnectionRecord(sinks, Direction.INBOUND, Endpoint("10.0.0.1", number), "spiffe://a/b", "qbitel")
        registry.add(LiveConnection(record, asyncio.get_running_loop().time(), lambda: None))


def test_connections_are_shown_oldest_first_as_the_log_will_show_them(inspect):
    async def scenario(inspector, registry, _stop):
        connections(registry, 3)
        return inspector.answer("connections", {"offset": "1", "limit": "1"})

    answer = json.loads(json.dumps(inspect(scenario)))
    assert answer["total"] == 3
    # A worker gives all rows up to the end of the page: which of them are in it depends on the other workers'.
    assert [row["source"] for row in answer["rows"]] == ["10.0.0.1:0", "10.0.0.1:1"]
    assert answer["rows"][0]["state"] == "opening"
    assert answer["rows"][0]["local_identity"] == "spiffe://a/b"


@pytest.mark.parametrize("wrong", [{"limit": "x"}, {"limit": "-1"}, {"offset": "²"}, {"limit": str(MAX_PAGE + 1)}])
def test_a_page_that_makes_no_sense_is_refused_in_words(inspect, wrong):
    async def scenario(inspector, _registry, _stop):
        return inspector.answer("tunnels", wrong)

    assert set(inspect(scenario)) == {"refused"}


def test_certificates_are_shown_with_their_expiry_and_no_key(inspect, pki):
    async def scenario(inspector, _registry, _stop):
        return inspector.answer("certs", {})

    answer = inspect(scenario)
    leaf = answer["chain"][0]
    assert leaf["uris"] == [answer["identity"]] == [pki.identity("web")]
    assert 0 < leaf["expires_in_s"] <= 12 * 3600
    assert datetime.datetime.fromisoformat(leaf["not_after"]) > utc_now()
    assert [root["subject"] for root in answer["roots"]] == ["CN=root"]
    assert (answer["revocation_lists"], answer["usable_for_s"]) == ([], None)
    assert "PRIVATE" not in json.dumps(answer)


def test_the_age_of_revocation_lists_is_shown(run, pki):
    from pqtls import TrustAnchors

    bundle = pki.bundle("web")
    roots = (pki.base / "web" / "ca.crt").read_bytes()
    trust = TrustAnchors.from_pem(roots, crls=pki.revocations("api", number=7))
    revoking = type(bundle)(bundle.credential, trust, bundle.settings)

    async def main():
        stop = Stop(asyncio.get_running_loop())
        return Inspector(Registry(), Source(revoking), utc_now, str, stop).answer("certs", {})

    answer = run(main())
    (edition,) = answer["revocation_lists"]
    assert (edition["authority"], edition["number"], answer["revoked"]) == ("CN=root", 7, 1)
    assert 0 <= edition["age_s"] < 3600
    assert answer["usable_for_s"] > 3600


def test_memory_and_state_are_numbers_of_this_process(inspect):
    async def scenario(inspector, registry, stop):
        connections(registry, 2)
        before = inspector.answer("state", {})
        inspector.answer("drain", {})
        return inspector.answer("memory", {}), before, inspector.answer("state", {}), stop

    memory, before, after, stop = inspect(scenario)
    assert memory["VmRSS_kB"] > 1000
    assert memory["descriptors"] > 3
    assert (before["connections"], before["draining"], before["not_ready"]) == (2, False, "no policies")
    assert after["draining"]
    assert not stop.asked.is_set()


def test_the_end_comes_behind_the_answer(inspect):
    async def scenario(inspector, _registry, stop):
        inspector.answer("quitquitquit", {})
        answered_first = not stop.now.is_set()
        await stop.now.wait()
        return answered_first, stop.asked.is_set()

    assert inspect(scenario) == (True, True)


def test_the_level_of_the_log_is_shown_and_changed(inspect):
    async def scenario(inspector, _registry, _stop):
        changed = inspector.answer("logging", {"level": "debug"})
        seen = logging.getLogger().getEffectiveLevel()
        refused = inspector.answer("logging", {"level": "loud"})
        return changed["level"], seen, refused, inspector.answer("logging", {})["level"]

    before = logging.getLogger().level
    try:
        changed, seen, refused, after = inspect(scenario)
    finally:
        logging.getLogger().setLevel(before)
    assert (changed, seen, after) == ("debug", logging.DEBUG, "debug")
    assert "level must be one of" in refused["refused"]


def test_others_may_show_what_they_have_loaded(inspect):
    async def scenario(inspector, _registry, _stop):
        inspector.sections["policy"] = lambda: {"generation": 3}
        return inspector.answer("config_dump", {})

    assert inspect(scenario)["policy"] == {"generation": 3}
