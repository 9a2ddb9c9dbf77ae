"""Applications of each kind, real ones, in a thread of their own: slow, wrong and silent where a test wants them so."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import threading
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

PATIENCE = 30.0


class Application:
    """Answers each connection by `talk`, which gets the socket; what came is in `heard`."""

    def __init__(self, talk: Callable[[Application, socket.socket], None], family: int, context=None) -> None:
        self._talk = talk
        self._context = context
        host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
        self._listener = socket.create_server((host, 0), family=family, backlog=64)
        self.host, self.port = self._listener.getsockname()[:2]
        self.heard: list[bytes] = []
        self.callers: list[str] = []
        self.released = threading.Event()
        self._threads = [threading.Thread(target=self._run)]
        self._threads[0].start()

    def _run(self) -> None:
        while True:
            sock, caller = self._listener.accept()
            if self.released.is_set():
                sock.close()
                return
            self.callers.append(caller[0])
            sock.settimeout(PATIENCE)
            thread = threading.Thread(target=self._serve, args=(sock,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):  # whoever asked has given up
            if self._context is not None:
                sock = self._context.wrap_socket(sock, server_side=True)
            self._talk(self, sock)
        sock.close()

    def close(self) -> None:
        self.released.set()
        socket.create_connection((self.host, self.port), timeout=PATIENCE).close()
        for thread in self._threads:
            thread.join(PATIENCE)
        self._listener.close()


def head_of(sock: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head and (data := sock.recv(4096)):
        head += data
    return head


def saying(answer: bytes):
    """An application that answers each request with these bytes."""

    def talk(application: Application, sock: socket.socket) -> None:
        application.heard.append(head_of(sock))
        sock.sendall(answer)

    return talk


def silent(application: Application, sock: socket.socket) -> None:
    """Takes the request, and says nothing until the test ends."""
    application.heard.append(head_of(sock))
    application.released.wait(PATIENCE)


@pytest.fixture
def application():
    """A factory of applications, by what they say."""
    with contextlib.ExitStack() as stack:

        def start(talk, *, family: int = socket.AF_INET, context=None) -> Application:
            made = Application(saying(talk) if isinstance(talk, bytes) else talk, family, context)
            stack.callback(made.close)
            return made

        yield start


@pytest.fixture
def classical_tls(stranger):
    """The TLS of an ordinary application."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(stranger)
    return context


@pytest.fixture(scope="session")
def stranger(tmp_path_factory):
    """A file with a certificate that nobody vouches for, for another name, expired; and its key."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "elsewhere.example")])
    then = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(then).not_valid_after(then + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )  # fmt: skip
    return file
