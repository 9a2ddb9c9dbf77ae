"""Real sockets, real certificates, real processes for the sidecar's tests."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certmgr.authority import WorkloadRequest, create_root, issue_workload
from certmgr.files import write_workload
from mesh.spiffe import SpiffeId
from pqtls import PROFILES, ClientConnection, ServerConnection
from proxy import credential_files, credentials
from proxy.config import CredentialFiles
from proxy.identity import IdentityRule

PATIENCE = 15.0  # seconds that anything here may take on a slow machine


class Pki:
    """A root with workloads, and what is wrong with the others: each a folder as a sidecar reads it."""

    def __init__(self, base: Path) -> None:
        self.base = base
        now = datetime.datetime.now(datetime.UTC)
        root = create_root("CN=root", now - datetime.timedelta(days=3))
        other = create_root("CN=other", now)
        hour = datetime.timedelta(hours=1)
        self.root = root
        self._write("web", "cluster.local", root, root, now)
        self._write("api", "cluster.local", root, root, now)
        self._write("foreign_domain", "elsewhere.example", root, root, now)
        self._write("expired", "cluster.local", root, root, now - datetime.timedelta(days=2), validity=hour)
        # Signed by a root that nobody else knows, though it trusts ours.
        self._write("other_root", "cluster.local", other, root, now)

    def _write(self, name, domain, issuer, trusted, now, validity=datetime.timedelta(hours=12)) -> None:
        spiffe_id = SpiffeId(domain, ("ns", "default", "sa", name))
        workload = issue_workload(WorkloadRequest(spiffe_id=spiffe_id, validity=validity), issuer, now)
        write_workload(self.base / name, workload, [trusted.certificate])

    def revocations(self, *names: str, number: int | None = None) -> bytes:
        """The root's PEM revocation list with the certificates of these workloads."""
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.root.certificate.subject)
        builder = builder.last_update(now).next_update(now + datetime.timedelta(days=1))
        if number is not None:
            builder = builder.add_extension(x509.CRLNumber(number), critical=False)
        for name in names:
            certificate = x509.load_pem_x509_certificate((self.base / name / "tls.crt").read_bytes())
            entry = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number).revocation_date(now)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(self.root.private_key, None).public_bytes(Encoding.PEM)

    def identity(self, name: str, domain: str = "cluster.local") -> str:
        return f"spiffe://{domain}/ns/default/sa/{name}"

    def files(self, name: str) -> CredentialFiles:
        return CredentialFiles.in_folder(self.base / name)

    def bundle(self, name: str) -> credentials.Bundle:
        settings = credentials.TlsSettings(
            profiles=(PROFILES["qbitel"],), accept_identity=IdentityRule(frozenset(), frozenset())
        )
        return credential_files.load(self.files(name), settings)


@pytest.fixture(scope="session")
def pki(tmp_path_factory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


def exchange(client, server) -> None:
    """Carry a handshake between two connections in memory."""
    for _ in range(10):
        if data := client.data_to_send():
            server.receive_data(data)
        if data := server.data_to_send():
            client.receive_data(data)
    client.events(), server.events()


@pytest.fixture(scope="session")
def tls_pair(pki):
    """A factory of (client, server): connections whose handshake is done."""
    client_config, server_config = pki.bundle("web").client(True), pki.bundle("api").server(True)

    def make():
        client, server = ClientConnection(client_config), ServerConnection(server_config)
        exchange(client, server)
        return client, server

    return make


@pytest.fixture
def tcp_pair():
    """A factory of two ends of one TCP connection over loopback, non-blocking; all are closed afterwards."""
    made = []

    def make(*, buffer: int | None = None):
        with socket.socket() as listener:
            if buffer:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            listener.bind(("127.0.0.1", 0))
            listener.listen(1)
            dialled = socket.socket()
            if buffer:
                dialled.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
            dialled.connect(listener.getsockname())
            accepted, _ = listener.accept()
        for sock in (dialled, accepted):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made.append(sock)
        return dialled, accepted

    yield make
    for sock in made:
        sock.close()


class Running:
    """A `qbitel` process that listens; its access log and its messages so far. `first` is Python that runs before."""

    def __init__(self, folder: Path, words: tuple[str, ...], preexec=None, first: str = "") -> None:
        self.out, self.err = folder / "out", folder / "err"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-c", f"{first}\nimport sys; from cli.main import main; sys.exit(main())", *words],
                stdout=out,
                stderr=err,
                preexec_fn=preexec,  # noqa: PLW1509  # only resource limits are set there
            )

    def wait_ready(self) -> Running:
        self.wait_for(lambda: " INFO ready: " in self.messages)
        return self

    def wait_for(self, condition, patience: float = PATIENCE):
        deadline = time.monotonic() + patience
        while True:
            if found := condition():
                return found
            if time.monotonic() > deadline or self.process.poll() is not None:
                if found := condition():
                    return found
                raise AssertionError(
                    f"did not come; exit {self.process.poll()}\n{self.messages}\n{self.out.read_text()}"
                )
            time.sleep(0.02)

    @property
    def messages(self) -> str:
        return self.err.read_text()

    def lines(self, event: str = "connection") -> list[dict]:
        """The complete lines of the access log."""
        found = [json.loads(line) for line in self.out.read_text().splitlines(keepends=True) if line.endswith("\n")]
        return [line for line in found if line["event"] == event]

    def port(self, what: str) -> int:
        """The port that "inbound", "outbound", "metrics" or "health" listens on (its first listener)."""
        found = re.search(rf" INFO {what} on \S+:(\d+)", self.messages)
        assert found, self.messages
        return int(found.group(1))

    def get(self, what: str, path: str) -> tuple[int, str]:
        url = f"http://127.0.0.1:{self.port(what)}{path}"
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the series of this name that have these labels."""
        total = 0.0
        for line in self.get("metrics", "/metrics")[1].splitlines():
            series = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
            if series and all(f'{key}="{value}"' in (series[1] or "") for key, value in labels.items()):
                total += float(series[2])
        return total

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


@contextlib.contextmanager
def processes(base: Path):
    """A factory that starts `qbitel WORDS …` with its output below `base`; every process is ended afterwards."""
    started = []

    def start(*words: object, ready: bool = True, preexec=None, first: str = "") -> Running:
        folder = base / f"process-{len(started)}"
        folder.mkdir()
        if words[0] == "proxy" and "--drain-quiet" not in words:
            words = (*words, "--drain-quiet", "0")  # nobody but the test dials it
        running = Running(folder, tuple(map(str, words)), preexec, first)
        started.append(running)
        return running.wait_ready() if ready else running

    try:
        yield start
    finally:
        for running in started:
            if running.process.poll() is None:
                running.process.kill()
            running.process.wait()


@pytest.fixture
def qbitel(tmp_path):
    with processes(tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def qbitel_for_all(tmp_path_factory):
    """The same for processes that the tests of one file share."""
    with processes(tmp_path_factory.mktemp("shared")) as start:
        yield start


@pytest.fixture
def inbound_sidecar(qbitel, pki):
    """Start a sidecar whose explicit inbound listener leads to the port `target`."""

    def start(target: int, *more: object, certs: str = "api", **options) -> Running:
        return qbitel(
            "proxy", "--no-capture", "--certs", pki.base / certs,
            "--explicit-inbound", f"127.0.0.1:0=127.0.0.1:{target}",
            "--metrics", "127.0.0.1:0", "--health", "127.0.0.1:0", *more, **options,
        )  # fmt: skip

    return start


@pytest.fixture
def outbound_sidecar(qbitel, pki):
    """Start a sidecar whose explicit outbound listener leads to the port `target`."""

    def start(target: int, *more: object, certs: str = "web", **options) -> Running:
        return qbitel(
            "proxy", "--no-capture", "--certs", pki.base / certs,
            "--explicit-outbound", f"127.0.0.1:0=127.0.0.1:{target}",
            "--metrics", "127.0.0.1:0", "--health", "127.0.0.1:0", *more, **options,
        )  # fmt: skip

    return start


@pytest.fixture
def application():
    """A listening socket in the application's place; accept() gives its connections."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        listener.settimeout(PATIENCE)
        yield listener


@pytest.fixture
def dial():
    """A factory of client connections (with a time-out) that are closed afterwards."""
    with contextlib.ExitStack() as stack:

        def connect(port: int) -> socket.socket:
            return stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE))

        yield connect


@pytest.fixture(scope="session")
def run():
    """Run a coroutine on uvloop, with a limit in time."""
    from proxy import loop

    def limited(coroutine, patience: float = 2 * PATIENCE):
        async def main():
            async with asyncio.timeout(patience):
                return await coroutine

        return loop.run(main())

    return limited
