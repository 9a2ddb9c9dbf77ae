"""`qbitel ca … --kubernetes` as its user meets it: real processes, a real API server, and an account of few rights."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("kubernetes_asyncio", reason="the extra `kubernetes` is not installed")

from certmgr.kubernetes.secret_store import SecretStore
from certmgr.requests import check_csr
from kube.client import ApiRefused, connect, resource
from tests.certmgr.authority_rig import csr
from tests.certmgr.kubernetes.authority import opened
from tests.certmgr.kubernetes.documented import documented, kubeconfig_of, moved, path_of
from tests.cli.ca.conftest import DB, WEB
from tests.cli.ca.conftest import Ca as InProcess
from tests.kube.rig import Place, kubeconfig_file, needs_cluster, real_cluster, run, stand_in, until, utc_now

_PROGRAM = "import sys; from cli.main import main; sys.exit(main())"


@dataclass(frozen=True, slots=True)
class Outcome:
    code: int
    output: str
    errors: str

    @property
    def data(self) -> Any:
        """What --json printed; whatever was written down on the way is on stderr, one object in each line."""
        assert self.code == 0, self
        return json.loads(self.output)

    @property
    def events(self) -> list[Any]:
        """The audit log's lines."""
        return [json.loads(line)["event"] for line in self.errors.splitlines()]

    @property
    def refusal(self) -> str:
        """The one line of a run that could not do what it was asked."""
        assert (self.code, self.output) == (2, ""), self
        (line,) = self.errors.splitlines()
        return line


@dataclass(frozen=True, slots=True)
class Ca:
    """Runs commands as the account of `kubeconfig`."""

    kubeconfig: str
    namespace: str

    async def __call__(self, command: str, *words: str | Path) -> Outcome:
        where = ("--kubernetes", "--kubeconfig", self.kubeconfig, "--namespace", self.namespace)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _PROGRAM, "ca", command, *map(str, words), *where),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await process.communicate()
        assert b"PRIVATE KEY" not in output + errors
        assert process.returncode is not None
        return Outcome(process.returncode, output.decode(), errors.decode())


async def keeper(place: Place) -> Ca:
    """Commands as an account that has the documented rights to the Secrets of the namespace and no others."""
    _, role, binding, *_ = account_and_role = moved(documented("authority"), place.namespace)
    role["rules"] = [rule for rule in role["rules"] if rule["resources"] == ["secrets"]]
    for each in account_and_role[:3]:
        await place.cluster.create(path_of(each), each)
    assert binding["kind"] == "RoleBinding"
    kubeconfig = await kubeconfig_of(place, role["metadata"]["name"])
    async with connect(kubeconfig) as cluster:
        while True:  # until the API server has taken up the rights
            try:
                await cluster.list(resource("secrets", namespace=place.namespace))
            except ApiRefused:
                await asyncio.sleep(0.05)
            else:
                return Ca(kubeconfig, place.namespace)


def test_an_authority_is_founded_in_a_cluster_and_never_by_mistake_in_anothers_place(tmp_path: Path) -> None:
    needs_cluster()

    async def main() -> None:
        async with real_cluster(tmp_path) as place:
            ca = await keeper(place)
            assert "holds no authority; make one with `qbitel ca init`" in (await ca("show")).refusal
            made = await ca("init", "--trust-domain", "example.org", "--json")
            assert (made.data["trust_domain"], made.data["place"]) == ("example.org", f"namespace {place.namespace}")
            assert made.events == ["founded"]
            assert "exists already" in (await ca("init")).refusal
            (shown,) = (await ca("show", "--json")).data["found"]
            assert shown["trust_domain"] == "example.org"
            secret = await place.find("secrets", place.namespace, "qbitel-authority")
            assert list(secret["data"]) == ["document"]

            again = await ca("init", "--force", "--json")
            assert again.data["generation"] != made.data["generation"]
            assert (await ca("show")).output.count("example.org") == 0

    run(main())


def test_of_replicas_that_found_at_once_one_does_and_the_others_find_what_it_made(tmp_path: Path) -> None:
    async def main() -> None:
        async with stand_in(tmp_path) as place:
            server = place.stand_in
            # A list of peers that an earlier authority left behind, and nobody's business of this one.
            store = SecretStore(place.cluster, place.namespace)
            await store.save("peers-old", b"", None)
            ca = Ca(place.kubeconfig, place.namespace)
            gate = server.hold = asyncio.Event()
            before = len(server.requests)
            replicas = [asyncio.ensure_future(ca("init", "--if-absent", "--json")) for _ in range(3)]
            # Step by step, none ahead of the others: is there one, is there still none, who has peers, here it is.
            for step in range(1, 5):
                await until(lambda step=step: len(server.requests) == before + 3 * step)
                held, gate = gate, asyncio.Event()
                server.hold = gate if step < 4 else None
                held.set()
            outcomes = [await one for one in replicas]

            assert {one.data["generation"] for one in outcomes} == {outcomes[0].data["generation"]}
            assert sorted(one.events for one in outcomes) == [[], [], ["founded"]]
            assert len([each for each in server.requests[before:] if each.startswith("POST")]) == 3
            assert list(await store.names()) == ["authority"]
            assert (await ca("init", "--if-absent", "--json")).data["generation"] == outcomes[0].data["generation"]

    run(main())


def test_replicas_found_an_authority_together_in_a_real_cluster(tmp_path: Path) -> None:
    needs_cluster()

    async def main() -> None:
        async with real_cluster(tmp_path) as place:
            ca = await keeper(place)
            outcomes = await asyncio.gather(*(ca("init", "--if-absent", "--json") for _ in range(3)))
            assert len({one.data["generation"] for one in outcomes}) == 1
            assert sorted(one.events for one in outcomes) == [[], [], ["founded"]]
            line = (await ca("init", "--if-absent", "--trust-domain", "example.org")).refusal
            assert "is of the trust domain cluster.local, not example.org" in line

    run(main())


def test_tokens_certificates_and_revocations_are_made_in_a_cluster(tmp_path: Path) -> None:
    needs_cluster()

    async def main() -> None:
        async with real_cluster(tmp_path) as place:
            ca = await keeper(place)
            assert (await ca("init")).code == 0
            made = await ca("token", "--spiffe", WEB, "--json")
            assert made.events == ["token made"]
            service = await opened(place, utc_now)
            proven = await service.redeem(made.data["token"], lambda proven: check_csr(csr(), proven))
            assert str(proven.spiffe_id) == WEB

            web, db = tmp_path / "web", tmp_path / "db"
            assert (await ca("issue", "--spiffe", WEB, "--out", web)).events == ["issued"]
            assert (await ca("issue", "--spiffe", DB, "--out", db)).code == 0
            assert "revoked" in (await ca("revoke", web / "tls.crt")).events
            assert "revoked" in (await ca("revoke", "--spiffe", DB)).events
            # At once: three that change the same document.
            outcomes = await asyncio.gather(*(ca("revoke", "--serial", f"{number:x}") for number in (7, 8, 9)))
            assert [one.code for one in outcomes] == [0, 0, 0]
            published = tmp_path / "published"
            assert (await ca("bundle", "--out", published)).code == 0
            lists = (published / "crl.pem").read_bytes()
            assert lists == (await opened(place, utc_now)).bundle().files["crl.pem"]
            assert {7, 8, 9} <= {one.serial for one in (await opened(place, utc_now)).state.revoked}
            assert len((await opened(place, utc_now)).state.revoked) == 5

    run(main())


def test_a_rotation_is_planned_begun_looked_at_and_taken_back_in_a_cluster(tmp_path: Path) -> None:
    needs_cluster()

    async def main() -> None:
        async with real_cluster(tmp_path) as place:
            ca = await keeper(place)
            assert (await ca("init")).code == 0
            assert (await ca("issue", "--spiffe", WEB, "--out", tmp_path / "web")).code == 0
            before = (await ca("rotate", "--plan", "--json")).data
            assert (before["phase"], before["next_phase"], len(before["roots"])) == ("stable", None, 1)
            assert (await ca("rotate", "--start")).events == ["rotation"]
            now = (await ca("rotate", "--status", "--json")).data
            assert (now["phase"], now["next_phase"], len(now["roots"])) == ("publishing", "signing", 2)
            assert [one["identity"] for one in now["blockers"]] == [WEB]
            assert (await ca("rotate", "--next")).code == 2
            assert (await ca("rotate", "--abort")).code == 0
            assert (await ca("rotate", "--status", "--json")).data["roots"] == before["roots"]

    run(main())


def test_a_root_that_is_kept_off_line_serves_an_authority_in_a_cluster(tmp_path: Path, ca: InProcess) -> None:
    needs_cluster()

    async def main() -> None:
        async with real_cluster(tmp_path) as place:
            cluster = await keeper(place)
            root, csr, signed = tmp_path / "root", tmp_path / "i.csr", tmp_path / "i.crt"
            await asyncio.to_thread(ca.good, "init", root, "--root-only")
            assert (await cluster("request", "--out", csr)).code == 0
            await asyncio.to_thread(ca.good, "sign", root, "--csr", csr, "--out", signed)
            assert (await cluster("import", "--certificate", signed, "--root", root / "ca.crt")).events == ["founded"]
            state = (await opened(place, utc_now)).state
            assert state.current.root_key is None
            # The key that waited for its certificate is in no second place.
            store = (await opened(place, utc_now)).parts.store
            assert [name for name in await store.names() if not name.startswith("peers-")] == ["authority"]

    run(main())


def test_what_a_cluster_refuses_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    kubeconfig = needs_cluster()

    async def main() -> None:
        async with real_cluster(tmp_path) as place:
            ca = await keeper(place)
            elsewhere = Ca(ca.kubeconfig, "default")
            for words in (["init"], ["show"], ["rotate", "--status"]):
                assert "no access to the Secrets of default" in (await elsewhere(words[0], *words[1:])).refusal
            nowhere = Ca(kubeconfig, f"{place.namespace}-not")
            line = (await nowhere("init")).refusal
            assert f"kubectl create namespace {place.namespace}-not" in line

    run(main())


def test_an_api_server_that_is_away_is_one_line(tmp_path: Path) -> None:
    async def main() -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))  # and nobody listens
            ca = Ca(kubeconfig_file(tmp_path, closed.getsockname()[1]), "qbitel-system")
            for words in (["init"], ["token", "--spiffe", WEB], ["rotate", "--start"]):
                assert "the API server cannot be reached" in (await ca(words[0], *words[1:])).refusal

    run(main())
