"""Two replicas as processes, sidecars that are really enrolled, and a death or a rotation while all of that goes on."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import random
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from certmgr.founding import new_state
from certmgr.kubernetes.parts import LEASE_NAME, cluster_store
from certmgr.state_document import encode_state
from certmgr.store import AUTHORITY_DOCUMENT
from cli.main import main as qbitel_main
from kube.client import resource
from mesh import names
from pqtls import PROFILES
from proxy.authority import AuthorityClient
from proxy.config import Endpoint, EnrolmentConfig, TrustFiles
from proxy.credentials import TlsSettings
from proxy.enrolled_credentials import EnrolledCredentials
from proxy.enroller import Enroller
from proxy.identity import IdentityRule
from tests.certmgr.kubernetes.authority import opened
from tests.certmgr.kubernetes.documented import granted
from tests.certmgr.kubernetes.test_token_review import requested
from tests.kube.places import Where
from tests.kube.rig import Place, beside, run, until, utc_now
from tests.proxy.conftest import Running, processes
from tests.proxy.test_with_real_authority import echo_all, through

SIDECARS = 50
# The shortest that an authority gives: renewals are due after 24 to 30 seconds.
LEAF = datetime.timedelta(minutes=1)
# How long a Service still sends connections to a pod that is dead. The kubelet tells of a container that ended within
# a second or two; this is a slow cluster's.
STALE_SECONDS = 10.0
ANYWHERE = "127.0.0.1:0"
PATIENCE = 400.0
_SYSTEM = random.SystemRandom()


class Service:
    """In kube-proxy's place: connections to one port go to any of `backends`, whether that one is alive or not."""

    def __init__(self) -> None:
        self.backends: list[int] = []
        self.port = 0

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError):
            there, back = await asyncio.open_connection("127.0.0.1", _SYSTEM.choice(self.backends))
            with contextlib.closing(back):
                await asyncio.gather(self._pump(reader, back), self._pump(there, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def service_of(*backends: int) -> AsyncIterator[Service]:
    service = Service()
    service.backends = list(backends)
    server = await asyncio.start_server(service.carry, "127.0.0.1", 0)
    service.port = server.sockets[0].getsockname()[1]
    try:
        yield service
    finally:
        server.close()


async def founded(place: Place) -> None:
    """An authority with short certificates, and a service account to enrol as."""
    async with cluster_store(place.kubeconfig, place.namespace) as store:
        state = new_state("CN=Test root", "cluster.local", utc_now(), leaf_validity=LEAF)
        await store.save(AUTHORITY_DOCUMENT, encode_state(state), None)
    for account in ("web", "api"):
        await place.cluster.create(
            resource("serviceaccounts", namespace=place.namespace), {"metadata": {"name": account}}
        )


async def replica(start: Callable[..., Running], place: Place, kubeconfig: str, name: str) -> Running:
    return await asyncio.to_thread(
        start,
        *("certmgr", "serve", "--kubernetes", "--kubeconfig", kubeconfig, "--namespace", place.namespace),
        *("--replica", name, "--listen", ANYWHERE, "--metrics", ANYWHERE, "--health", ANYWHERE),
    )


async def enrolling(place: Place, account: str) -> tuple[Path, Path]:
    """A folder with the roots and a file with a token, as a pod has them."""
    token = place.folder / f"token-{account}"
    token.write_text(await requested(place, account, names.TOKEN_AUDIENCE))
    roots = place.folder / "roots"
    roots.mkdir(exist_ok=True)
    service = await opened(place, utc_now)
    (roots / names.ROOTS_FILE).write_bytes(service.bundle().files[names.ROOTS_FILE])
    return roots, token


class Counts:
    """What came of each attempt."""

    def __init__(self) -> None:
        self.good = 0
        self.failed = 0

    def rotation(self, result: str) -> None:
        self.good += result == "ok"
        self.failed += result != "ok"

    def succeeded_at(self, now: datetime.datetime) -> None:
        pass

    def reachable(self, yes: bool) -> None:
        pass


class Sidecar:
    """The part of one that enrols, as `qbitel proxy` runs it."""

    def __init__(self, number: int, port: int, roots: Path, token: Path) -> None:
        domains = frozenset({"cluster.local"})
        config = EnrolmentConfig(
            authority=Endpoint("127.0.0.1", port),
            roots=TrustFiles.in_folder(roots),
            token=token,
            instance=f"pod-{number}",
        )
        rule = IdentityRule(domains, frozenset())
        settings = TlsSettings(profiles=(PROFILES["qbitel"],), accept_identity=rule, now=utc_now)
        self.credentials = EnrolledCredentials(config, settings, domains)
        self.counts = Counts()
        self.instance = f"pod-{number}/0"
        client = AuthorityClient(config.authority, self.credentials.toward_authority)
        self.enroller = Enroller(
            config, self.instance, self.credentials, client, self.counts, now=utc_now, random=_SYSTEM.random
        )


async def leader(place: Place) -> str:
    """The replica that holds the Lease; "" for none."""
    path = resource("leases", namespace=place.namespace, name=LEASE_NAME, api="apis/coordination.k8s.io/v1")
    holder = ((await place.cluster.get(path))["spec"].get("holderIdentity")) or ""
    return str(holder).rpartition("_")[0]


async def known(place: Place, sidecars: list[Sidecar]) -> bool:
    """Whether a leader that steps a rotation on would know of the certificate that each sidecar has now."""
    peers = await (await opened(place, utc_now, replica="reader")).ledger.everyone()
    identity = f"spiffe://cluster.local/ns/{place.namespace}/sa/web"
    leaves = [x509.load_der_x509_certificate(one.credentials.current.credential.chain[0]) for one in sidecars]
    return all(
        peers.find(identity, one.instance, f"{leaf.serial_number:x}") is not None
        for one, leaf in zip(sidecars, leaves, strict=True)
    )


def test_a_replica_that_is_killed_amid_renewals_keeps_no_sidecar_from_its_next_certificate(
    real: Where, tmp_path: Path
) -> None:
    async def main(start: Callable[..., Running]) -> None:
        async with real() as place, granted(place, "authority") as kubeconfig:
            await founded(place)
            replicas = {name: await replica(start, place, kubeconfig, name) for name in ("pod-0", "pod-1")}
            roots, token = await enrolling(place, "web")
            async with service_of(*(one.port("API") for one in replicas.values())) as service:
                sidecars = [Sidecar(number, service.port, roots, token) for number in range(SIDECARS)]
                async with beside(*(one.enroller.run() for one in sidecars)):
                    await until(lambda: all(one.enroller.enrolled.is_set() for one in sidecars))
                    # The renewals begin: the one that leads dies now.
                    await until(lambda: sum(one.counts.good >= 2 for one in sidecars) >= 5)
                    dead = await leader(place)
                    await asyncio.to_thread(replicas[dead].stop, signal.SIGKILL)
                    before = [one.counts.good for one in sidecars]
                    stale_until = asyncio.get_running_loop().time() + STALE_SECONDS
                    (survivor,) = (one for name, one in replicas.items() if name != dead)

                    def all_have_gone_on() -> bool:
                        if asyncio.get_running_loop().time() >= stale_until:
                            service.backends = [survivor.port("API")]
                        assert all(one.enroller.is_usable for one in sidecars), "a certificate ended before the next"
                        return all(one.counts.good >= old + 2 for one, old in zip(sidecars, before, strict=True))

                    await until(all_have_gone_on)
                    assert await leader(place) not in ("", dead)
                    assert any(one.counts.failed for one in sidecars)  # the death was felt, or nothing was shown here
                    # It comes back under its name, goes on with its list, and serves.
                    again = await replica(start, place, kubeconfig, dead)
                    service.backends = [again.port("API")]
                    before = [one.counts.good for one in sidecars]
                    for one in sidecars:
                        one.enroller.renew_now()
                    await until(lambda: all(one.counts.good > old for one, old in zip(sidecars, before, strict=True)))
                    assert await known(place, sidecars)
            for one in (survivor, again):
                assert await asyncio.to_thread(one.stop) == 0
                assert "Traceback" not in one.messages

    with processes(tmp_path) as start:
        run(main(start), PATIENCE)


async def proxy(
    start: Callable[..., Running], port: int, roots: Path, token: Path, name: str, *direction: str
) -> Running:
    return await asyncio.to_thread(
        start,
        *("proxy", "--no-capture", "--authority", f"127.0.0.1:{port}", "--authority-roots", roots, "--token", token),
        *("--instance", name, *direction, "--metrics", ANYWHERE, "--health", ANYWHERE),
    )


async def traffic_until(done: Callable[[], Any], outbound: Running) -> None:
    """Connections all the while, each of which must get through both sidecars and back."""
    while not await asyncio.to_thread(done):
        assert await asyncio.to_thread(through, outbound)


def test_the_root_is_replaced_under_sidecars_that_proved_themselves_by_tokens_of_the_cluster(
    real: Where, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async def main(start: Callable[..., Running], application: socket.socket) -> None:
        async with real() as place, granted(place, "authority") as kubeconfig:
            await founded(place)
            replicas = [await replica(start, place, kubeconfig, name) for name in ("pod-0", "pod-1")]
            cluster = ["--kubernetes", "--kubeconfig", kubeconfig, "--namespace", place.namespace]

            def rotate(step: str) -> str:
                capfd.readouterr()
                assert qbitel_main(["ca", "rotate", step, *cluster]) == 0
                return capfd.readouterr().out

            async with service_of(*(one.port("API") for one in replicas)) as service:
                roots, token = await enrolling(place, "api")
                echo = f"{ANYWHERE}=127.0.0.1:{application.getsockname()[1]}"
                api = await proxy(start, service.port, roots, token, "api-1", "--explicit-inbound", echo)
                roots, token = await enrolling(place, "web")
                inward = f"{ANYWHERE}=127.0.0.1:{api.port('inbound')}"
                web = await proxy(start, service.port, roots, token, "web-1", "--explicit-outbound", inward)

                old = (await opened(place, utc_now)).state.current.name
                await asyncio.to_thread(rotate, "--start")
                plan = await asyncio.to_thread(rotate, "--plan")
                assert "phase publishing" in plan
                await traffic_until(lambda: "phase signing" in rotate("--status"), web)
                await traffic_until(lambda: "phase stable" in rotate("--status"), web)
                state = (await opened(place, utc_now)).state
                assert [one.name for one in state.generations] != [old]
                assert len(state.generations) == 1
                for one in (web, api):
                    assert one.metric("qbitel_connections_refused_total") == 0
                    assert await asyncio.to_thread(one.stop) == 0
            for one in replicas:
                assert await asyncio.to_thread(one.stop) == 0
                assert "Traceback" not in one.messages

    with processes(tmp_path) as start, socket.create_server(("127.0.0.1", 0)) as application:
        threading.Thread(target=echo_all, args=(application,), daemon=True).start()
        run(main(start, application), PATIENCE)
