"""The keeper: closed until it could read, last good kept, open connections asked again, one line for each fault."""

from __future__ import annotations

import asyncio

import pytest

from mesh.errors import UserError
from mesh.modes import MTLSMode
from proxy.config import Direction, Endpoint
from proxy.policy import folder
from proxy.policy.config import PolicyConfig
from proxy.policy.keeper import PolicyKeeper
from proxy.reasons import Refused
from proxy.record import ConnectionRecord
from proxy.registry import LiveConnection, Registry
from proxy.relay import End
from tests.proxy.policy.conftest import OTHER, WEB, allow, facts, mode_of


class Credentials:
    """Stands where the certificates do: whose they are is all that is asked."""

    class current:  # noqa: N801
        identity = "spiffe://cluster.local/ns/default/sa/api"


class Carrier:
    """A relay that only notes how it was ended."""

    moved = (0, 0)
    waiting = 0

    def __init__(self) -> None:
        self.ended = False
        self.how = None

    def peer_vanished(self, _seconds):
        return False

    def abort(self, end, error=None):
        self.ended, self.how = True, (end, error)


class Kept:
    def __init__(self, rig, folder, **config) -> None:
        self.rig, self.folder = rig, folder
        self.registry = Registry()
        self.became_ready = 0
        self.told: list[tuple] = []
        self.keeper = PolicyKeeper(
            PolicyConfig(folder=folder, **config), folder, MTLSMode.STRICT, rig.gate, Credentials, self.registry,
            self._is_ready, lambda *told: self.told.append(told),
        )  # fmt: skip

    def _is_ready(self) -> None:
        assert self.keeper.obstacle == ""
        self.became_ready += 1

    def write(self, *documents: str) -> None:
        (self.folder / "policy.yaml").write_text("---\n".join(documents))

    def allows(self, principal: str) -> bool:
        try:
            self.rig.gate.admit(facts(principal), self.rig.record(), is_secure=True)
        except Refused:
            return False
        return True

    async def reload(self) -> None:
        self.keeper.tend()
        await self.keeper._rereading.settled()

    def live(self, principal: str | None, *, relay: bool = True) -> tuple[LiveConnection, Carrier]:
        record = ConnectionRecord(self.rig.sinks, Direction.INBOUND, Endpoint("10.0.0.9", 1), "-", "qbitel")
        live = LiveConnection(record, 0.0, lambda: None)
        live.standing = self.rig.gate.admit(facts(principal), record, is_secure=principal is not None)
        carrier = Carrier()
        if relay:
            live.relaying(carrier)
        self.registry.add(live)
        return live, carrier


@pytest.fixture
def kept(rig, run, tmp_path):
    """Run a scenario with a keeper of a folder."""

    def go(scenario, **config):
        async def main():
            kept = Kept(rig(folder=tmp_path), tmp_path, **config)
            try:
                await scenario(kept)
            finally:
                await kept.keeper.close()

        run(main())

    return go


def test_nobody_is_let_in_before_the_policies_are_read(kept):
    async def scenario(kept):
        kept.write(allow(WEB))
        assert "not been read" in kept.keeper.obstacle
        assert not kept.allows(WEB)
        await kept.keeper.load()
        assert kept.keeper.obstacle == ""
        assert kept.allows(WEB)
        assert not kept.allows(OTHER)
        assert kept.rig.value("qbitel_policy_generation") == 1
        assert kept.became_ready == 0  # whoever awaited it knows
        ((resources, workload, trust_domain),) = kept.told
        assert len(resources.authorization_policies) == 1
        assert (str(workload), trust_domain) == ("default/api", "cluster.local")
        assert kept.keeper.describe() == {"folder": str(kept.folder), "generation": 1, "failure": None}

    kept(scenario)


def test_an_empty_folder_is_no_policies_and_lets_in(kept):
    async def scenario(kept):
        await kept.keeper.load()
        assert kept.keeper.obstacle == ""
        assert kept.allows(WEB)

    kept(scenario)


def test_policies_that_cannot_be_read_at_the_start_close_the_gate_and_are_named(kept, caplog):
    async def scenario(kept):
        kept.write(allow(WEB), mode_of("STRONG"))
        await kept.keeper.load()
        assert "policy.yaml:" in kept.keeper.obstacle
        with pytest.raises(Refused, match=r"policy\.yaml:"):
            kept.rig.gate.admit(facts(WEB), kept.rig.record(), is_secure=True)
        assert caplog.text.count("nobody is let in until they can") == 1
        await kept.reload()  # nothing is new, and nothing is said or counted again
        assert kept.rig.value("qbitel_policy_reloads_total", result="failed") == 1
        kept.write(allow(WEB))
        await kept.reload()
        assert kept.keeper.obstacle == ""
        assert kept.allows(WEB)
        kept.write(allow(OTHER))
        await kept.reload()
        assert kept.became_ready == 1  # said when it is news

    kept(scenario)


def test_whatever_becomes_of_the_folder_the_last_good_policies_stay(kept, caplog):
    async def scenario(kept):
        kept.write(allow(WEB))
        await kept.keeper.load()
        for wrong in ("a: [", mode_of("STRONG"), allow(OTHER) + "---\n" + mode_of("STRONG")):
            kept.write(wrong)
            await kept.reload()
            assert (kept.allows(WEB), kept.allows(OTHER), kept.keeper.obstacle) == (True, False, "")
            assert len(kept.told) == 1
        (kept.folder / "policy.yaml").unlink()
        kept.folder.rmdir()
        await kept.reload()
        await kept.reload()
        assert kept.allows(WEB)
        assert caplog.text.count("the last good ones stay in force") == 4
        assert kept.rig.value("qbitel_policy_reloads_total", result="failed") == 4
        kept.folder.mkdir()
        kept.write(allow(OTHER))
        await kept.reload()
        assert kept.allows(OTHER)
        assert kept.rig.value("qbitel_policy_generation") == 2

    kept(scenario)


def test_a_file_that_becomes_readable_without_a_change_is_taken_up(kept, monkeypatch):
    async def scenario(kept):
        kept.write(allow(WEB))
        real = folder.read_file

        def refuse(path, **_options):
            raise UserError(f"no permission to read {path}")

        monkeypatch.setattr(folder, "read_file", refuse)
        await kept.keeper.load()
        assert "no permission" in kept.keeper.obstacle
        monkeypatch.setattr(folder, "read_file", real)
        await kept.reload()
        assert kept.allows(WEB)

    kept(scenario)


def test_an_identity_that_says_no_workload_is_an_obstacle_and_flags_remove_it(kept, monkeypatch):
    monkeypatch.setattr(Credentials.current, "identity", "spiffe://cluster.local/api")

    async def without(kept):
        await kept.keeper.load()
        assert "--namespace" in kept.keeper.obstacle

    async def with_flags(kept):
        await kept.keeper.load()
        assert kept.keeper.obstacle == ""

    kept(without)
    kept(with_flags, namespace="default", service_account="api")


def test_another_identity_makes_the_rules_anew(kept, monkeypatch):
    async def scenario(kept):
        kept.write(allow(OTHER, namespace="bank"))
        await kept.keeper.load()
        assert kept.allows(WEB)
        monkeypatch.setattr(Credentials.current, "identity", "spiffe://cluster.local/ns/bank/sa/api")
        await kept.reload()
        assert not kept.allows(WEB)

    kept(scenario)


def test_sighup_reads_again_what_seems_the_same_and_nothing_before_the_first_reading(kept):
    async def scenario(kept):
        kept.keeper.refresh()
        await kept.keeper._rereading.settled()
        assert kept.rig.value("qbitel_policy_generation") == 0
        await kept.keeper.load()
        kept.keeper.refresh()
        kept.keeper.refresh()  # twice at once is once
        await kept.keeper._rereading.settled()
        assert kept.rig.value("qbitel_policy_generation") == 2

    kept(scenario)


def test_sighup_while_the_folder_is_read_reads_it_once_more(kept, monkeypatch):
    async def scenario(kept):
        await kept.keeper.load()
        real, asked = kept.keeper._read, []

        def read_and_ask(identity):
            if not asked:
                asked.append(loop.call_soon_threadsafe(kept.keeper.refresh))
            return real(identity)

        loop = asyncio.get_running_loop()
        monkeypatch.setattr(kept.keeper, "_read", read_and_ask)
        kept.keeper.refresh()
        await kept.keeper._rereading.settled()
        assert kept.rig.value("qbitel_policy_generation") == 3

    kept(scenario)


def test_open_connections_that_are_not_let_in_any_more_are_reset_with_the_policy_s_reason(kept):
    async def scenario(kept):
        kept.write(allow(WEB, OTHER), mode_of("PERMISSIVE"))
        await kept.keeper.load()
        (_, web), (_, other) = kept.live(WEB), kept.live(OTHER)
        kept.write(allow(WEB, OTHER), allow(OTHER, action="DENY", name="block"), mode_of("PERMISSIVE"))
        await kept.reload()
        assert not web.ended
        end, error = other.how
        assert end is End.DENIED
        assert error.verdict.reason == "denied_by_policy"
        assert "default/block" in error.verdict.message

    kept(scenario)


def test_open_plaintext_is_reset_when_its_port_becomes_strict(kept):
    async def scenario(kept):
        kept.write(mode_of("PERMISSIVE"))
        await kept.keeper.load()
        _, plain = kept.live(None)
        kept.write(mode_of("STRICT"))
        await kept.reload()
        assert plain.how[1].verdict.reason == "plaintext_refused"

    kept(scenario)


def test_a_connection_that_is_still_dialling_is_not_touched_for_it_asks_by_itself(kept):
    async def scenario(kept):
        kept.write(allow(WEB))
        await kept.keeper.load()
        live, _ = kept.live(WEB, relay=False)
        kept.write(allow(OTHER))
        await kept.reload()
        with pytest.raises(Refused):
            kept.rig.gate.admit_again(live.standing, live.record)

    kept(scenario)


def test_many_open_connections_are_asked_in_pieces_between_which_others_get_their_turn(kept):
    async def scenario(kept):
        kept.write(allow(WEB, OTHER))
        await kept.keeper.load()
        carriers = [kept.live(OTHER if number % 2 else WEB)[1] for number in range(600)]
        turns = []

        async def other_work():
            while not carriers[-1].ended:
                turns.append(sum(carrier.ended for carrier in carriers))
                await asyncio.sleep(0)

        watcher = asyncio.create_task(other_work())
        kept.write(allow(WEB))
        await kept.reload()
        await watcher
        assert sum(carrier.ended for carrier in carriers) == 300
        assert len(set(turns)) > 3  # it was seen half done

    kept(scenario)


def test_a_bug_in_the_reading_keeps_the_last_good_policies_and_the_process(kept, monkeypatch, caplog):
    async def scenario(kept):
        kept.write(allow(WEB))
        await kept.keeper.load()
        monkeypatch.setattr(kept.keeper, "_read", lambda identity: 1 / 0)
        kept.write(allow(OTHER))
        await kept.reload()
        assert kept.allows(WEB)
        assert "please report it" in caplog.text

    kept(scenario)


def test_the_end_waits_for_no_reading(kept):
    async def scenario(kept):
        kept.write(allow(WEB))
        loading = asyncio.create_task(kept.keeper.load())
        await asyncio.sleep(0)
        await kept.keeper.close()
        with pytest.raises((asyncio.CancelledError, UserError)):
            await loading

    kept(scenario)
