"""OpenSSL 4 as the peer to measure against, through pyOpenSSL's memory BIOs, with the same algorithms."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from OpenSSL import SSL
from OpenSSL._util import ffi, lib

from certmgr.authority import CertificateAndKey

_CHUNK = 2**17


def context(root: CertificateAndKey, leaf: CertificateAndKey, group: str, *, tickets: bool) -> SSL.Context:
    """A mutual TLS 1.3 context: one group, ML-DSA-87, AES-256-GCM, leaf only, as ours; for both roles."""
    made = SSL.Context(SSL.TLS_METHOD)
    made.set_min_proto_version(SSL.TLS1_3_VERSION)
    with tempfile.TemporaryDirectory() as folder:
        certificate, key, roots = (Path(folder) / name for name in ("tls.crt", "tls.key", "ca.crt"))
        key.touch(mode=0o600)
        key.write_bytes(leaf.private_key_pem)
        certificate.write_bytes(leaf.certificate_pem)
        roots.write_bytes(root.certificate_pem)
        made.use_certificate_file(str(certificate))
        made.use_privatekey_file(str(key))
        made.load_verify_locations(str(roots))
    made.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: bool(_[4]))
    made.set_tls13_ciphersuites(b"TLS_AES_256_GCM_SHA384")
    made.set_mode(lib.SSL_MODE_RELEASE_BUFFERS)
    if tickets:
        # A server that verifies its clients resumes nothing without a name for its context.
        made.set_session_id(b"benchmark")
    else:
        # SSL_OP_NO_TICKET alone leaves TLS 1.3 tickets on, with a server-side cache behind them.
        made.set_options(SSL.OP_NO_TICKET)
        made.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        if hasattr(lib, "SSL_CTX_set_num_tickets"):
            lib.SSL_CTX_set_num_tickets(made._context, 0)
    # Otherwise the root is appended to the chain.
    lib.SSL_CTX_set_mode(made._context, lib.SSL_MODE_NO_AUTO_CHAIN if hasattr(lib, "SSL_MODE_NO_AUTO_CHAIN") else 8)
    for setter, value in ((lib.SSL_CTX_set1_curves_list, group), (lib.SSL_CTX_set1_sigalgs_list, "mldsa87")):
        if setter(made._context, ffi.new("char[]", value.encode())) != 1:
            raise RuntimeError(f"OpenSSL does not know {value}")
    return made


class Pair:
    """A client and a server in one process, connected by memory."""

    def __init__(self, context: SSL.Context, session: SSL.Session | None = None) -> None:
        self.client = SSL.Connection(context, None)
        if session is not None:
            self.client.set_session(session)
        self.client.set_connect_state()
        self.server = SSL.Connection(context, None)
        self.server.set_accept_state()
        self.bytes = {self.client: 0, self.server: 0}

    def handshake(self) -> None:
        """Run the handshake to its end."""
        done: set[SSL.Connection] = set()
        while len(done) < 2:
            for one in (self.client, self.server):
                try:
                    one.do_handshake()
                    done.add(one)
                except SSL.WantReadError:
                    pass
            self.carry(self.client, self.server)
            self.carry(self.server, self.client)

    @property
    def was_resumed(self) -> bool:
        """Whether the session that was given was taken up."""
        return bool(lib.SSL_session_reused(self.client._ssl))

    def session(self) -> SSL.Session:
        """The session of the newest ticket; reading makes OpenSSL's client look at tickets. Ends the connection."""
        with contextlib.suppress(SSL.WantReadError):
            self.client.recv(1)
        found = self.client.get_session()
        # OpenSSL forgets the session of a connection that is freed without an orderly end.
        for one in (self.client, self.server):
            one.set_shutdown(SSL.SENT_SHUTDOWN | SSL.RECEIVED_SHUTDOWN)
        if found is None:
            raise RuntimeError("OpenSSL has no session")
        return found

    def message(self, source: SSL.Connection, target: SSL.Connection, data: bytes) -> None:
        """Send `data` from one end and receive all of it at the other."""
        source.send(data)
        self.carry(source, target)
        received = 0
        while received < len(data):
            received += len(target.recv(len(data)))

    def carry(self, source: SSL.Connection, target: SSL.Connection) -> None:
        """Move what `source` wrote to `target`."""
        while True:
            try:
                data = source.bio_read(_CHUNK)
            except SSL.WantReadError:
                return
            self.bytes[source] += len(data)
            view = memoryview(data)
            while view:
                view = view[target.bio_write(bytes(view)) :]
