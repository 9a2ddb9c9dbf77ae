"""OpenSSL, as it comes in the wheel of `cryptography`, as the other end of a connection: a judge that is not ours.

It runs over memory BIOs, so no socket is involved and a test sees every byte. pyOpenSSL's own loader of private keys
knows no ML-DSA; OpenSSL's loader of files does, so credentials go through a private temporary folder.

What pyOpenSSL 26.4 does not expose, and so cannot be asked of OpenSSL here: SSL_key_update (OpenSSL sends a KeyUpdate
only when we ask for one), SSL_CTX_set_max_send_fragment, SSL_CTX_set_num_tickets.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from OpenSSL import SSL
from OpenSSL._util import lib

import pqtls
from pqtls.profiles import PROFILES, Profile
from tests.support.pki import NOW, Issued, client_config, leaf, root, server_config

# The names that OpenSSL has for a profile's groups and signature schemes; also those that it does not share with us.
GROUPS: Final = {"hybrid-l5": b"SecP384r1MLKEM1024", "cnsa2": b"MLKEM1024", "compat": b"X25519MLKEM768"}
SIGNATURES: Final = {
    "hybrid-l5": b"mldsa87",
    "cnsa2": b"mldsa87",
    "compat": b"mldsa87:ecdsa_secp384r1_sha384:ecdsa_secp256r1_sha256",
}
# One TLS record is all that BIO reads are likely to find; larger pieces only cost memory.
_PIECE: Final = 2**18
_ALERT: Final = 0x4000  # SSL_CB_ALERT
_READ: Final = 0x04  # SSL_CB_READ
_WRITE: Final = 0x08  # SSL_CB_WRITE


class OpenSslRefused(Exception):
    """OpenSSL ended the connection; the text is its own reason, for example "certificate verify failed"."""


def openssl_context(
    profile: str,
    *chain: Issued,
    trust: tuple[Issued, ...] | None = None,
    groups: bytes | None = None,
    signatures: bytes | None = None,
    suites: bytes | None = None,
    verify: bool = True,
    alpn: tuple[bytes, ...] = (),
    maximum_version: int | None = None,
) -> SSL.Context:
    """An OpenSSL context for either role that speaks `profile` and trusts `trust`, at the time NOW.

    `chain` is its credential, leaf first; without one it has none. `alpn` is what a client offers, and what a server
    selects from in its own order.
    """
    context = SSL.Context(SSL.TLS_METHOD)
    if maximum_version is None:
        context.set_min_proto_version(SSL.TLS1_3_VERSION)
    else:
        context.set_max_proto_version(maximum_version)
    _demand(lib.SSL_CTX_set1_curves_list(context._context, groups or GROUPS[profile]))
    _demand(lib.SSL_CTX_set1_sigalgs_list(context._context, signatures or SIGNATURES[profile]))
    if suites is not None:
        context.set_tls13_ciphersuites(suites)
    if chain:
        _load_credential(context, chain)
    if verify:
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
    _load_trust(context, trust if trust is not None else (root(),))
    if alpn:
        context.set_alpn_protos(list(alpn))
        context.set_alpn_select_callback(
            lambda _connection, offered: next((mine for mine in alpn if mine in offered), SSL.NO_OVERLAPPING_PROTOCOLS)
        )
    return context


def _demand(result: int) -> None:
    if result != 1:
        raise ValueError("OpenSSL does not know one of these names")


def _load_credential(context: SSL.Context, chain: tuple[Issued, ...]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        certificates, key = Path(folder, "chain.pem"), Path(folder, "key.pem")
        certificates.write_bytes(b"".join(one.certificate_pem for one in chain))
        key.touch(mode=0o600)
        key.write_bytes(chain[0].key_pem)
        context.use_certificate_chain_file(str(certificates))
        context.use_privatekey_file(str(key))
        context.check_privatekey()


def _load_trust(context: SSL.Context, roots: tuple[Issued, ...]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "roots.pem")
        path.write_bytes(b"".join(one.certificate_pem for one in roots))
        context.load_verify_locations(str(path))
    store = context.get_cert_store()
    if store is None:
        raise ValueError("the context has no store")
    store.set_time(NOW)


class OpenSslPeer:
    """One connection of OpenSSL's. Raises OpenSslRefused when OpenSSL gives up."""

    def __init__(self, context: SSL.Context, *, is_client: bool, server_name: bytes | None = None) -> None:
        self.ssl = SSL.Connection(context, None)
        self.established = False
        self.peer_closed = False
        self.alerts_sent: list[str] = []
        self.alerts_received: list[str] = []
        self.ssl.set_info_callback(self._on_info)
        if is_client:
            self.ssl.set_connect_state()
        else:
            self.ssl.set_accept_state()
        if server_name is not None:
            self.ssl.set_tlsext_host_name(server_name)

    def _on_info(self, _connection: Any, where: int, value: int) -> None:
        if where & _ALERT:
            description = value & 0xFF
            name = pqtls.Alert(description).name.lower()
            if where & _READ:
                self.alerts_received.append(name)
            elif where & _WRITE:
                self.alerts_sent.append(name)

    @property
    def identity(self) -> str:
        """The URI of the certificate that OpenSSL verified."""
        certificate = self.ssl.get_peer_certificate(as_cryptography=True)
        if certificate is None:
            raise ValueError("OpenSSL saw no certificate")
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
        return uri

    @property
    def resumed(self) -> bool:
        """Whether OpenSSL took up a session."""
        return bool(lib.SSL_session_reused(self.ssl._ssl))

    def feed(self, data: bytes | memoryview) -> None:
        """Give it bytes from the wire, and let it go on with the handshake."""
        if data:
            written = self.ssl.bio_write(data)
            if written != len(data):
                raise ValueError("the memory BIO took less than it was given")
        self.step()

    def step(self) -> None:
        """Go on with the handshake as far as the bytes at hand allow."""
        if self.established:
            return
        try:
            self.ssl.do_handshake()
        except SSL.WantReadError:
            return
        except SSL.Error as error:
            raise _refusal(error) from None
        self.established = True

    def output(self) -> bytes:
        """Drain what it wants on the wire."""
        pieces: list[bytes] = []
        while True:
            try:
                pieces.append(self.ssl.bio_read(_PIECE))
            except SSL.WantReadError:
                return b"".join(pieces)

    def read(self) -> bytes:
        """Decrypt all that has come. Sets `peer_closed` at close_notify."""
        pieces: list[bytes] = []
        while True:
            try:
                pieces.append(self.ssl.recv(_PIECE))
            except SSL.WantReadError:
                return b"".join(pieces)
            except SSL.ZeroReturnError:
                self.peer_closed = True
                return b"".join(pieces)
            except SSL.Error as error:
                raise _refusal(error) from None

    def write(self, data: bytes | memoryview) -> None:
        """Encrypt; the records are in output()."""
        sent = 0
        while sent < len(data):
            sent += self.ssl.send(data[sent:])

    def close(self) -> None:
        """Send close_notify; the other direction stays open."""
        self.ssl.shutdown()


def _refusal(error: SSL.Error) -> OpenSslRefused:
    reasons = error.args[0] if error.args else ()
    return OpenSslRefused(", ".join(str(entry[-1]) for entry in reasons) or repr(error))


@dataclass(frozen=True)
class Wire:
    """What went over the wire, one entry for each time that an end spoke."""

    from_us: list[bytes] = field(default_factory=list)
    from_them: list[bytes] = field(default_factory=list)


def shake_hands(ours: pqtls.Connection, theirs: OpenSslPeer, piece: int = 2**20) -> Wire:
    """Carry bytes both ways, at most `piece` at a time, until both are silent. Raises what either end raises."""
    wire = Wire()
    theirs.step()
    while True:
        to_them, to_us = ours.data_to_send(), theirs.output()
        if not to_them and not to_us:
            return wire
        if to_them:
            wire.from_us.append(to_them)
        if to_us:
            wire.from_them.append(to_us)
        for start in range(0, len(to_them), piece):
            theirs.feed(to_them[start : start + piece])
        for start in range(0, len(to_us), piece):
            ours.receive_data(to_us[start : start + piece])


def ours_as(role: str, profile: str | Profile, **changes: Any) -> pqtls.Connection:
    """Our end as the "client" or the "server"; any field of its configuration can be changed."""
    chosen = PROFILES[profile] if isinstance(profile, str) else profile
    if role == "client":
        return pqtls.ClientConnection(client_config(profiles=(chosen,), **changes))
    return pqtls.ServerConnection(server_config(profiles=(chosen,), **changes))


def theirs_against(
    role: str, profile: str, *chain: Issued, server_name: bytes | None = None, **options: Any
) -> OpenSslPeer:
    """OpenSSL in the role opposite to `role`, with the other end's leaf unless a chain is given."""
    is_client = role == "server"
    context = openssl_context(profile, *(chain or (leaf("client" if is_client else "server"),)), **options)
    return OpenSslPeer(context, is_client=is_client, server_name=server_name)


def connected_to_openssl(
    role: str, profile: str | Profile = "hybrid-l5", **changes: Any
) -> tuple[pqtls.Connection, OpenSslPeer]:
    """Both ends after their mutual handshake, our events drained."""
    ours = ours_as(role, profile, **changes)
    theirs = theirs_against(role, profile if isinstance(profile, str) else profile.name)
    shake_hands(ours, theirs)
    if not (ours.handshake_complete and theirs.established):
        raise ValueError("the handshake fell silent before its end")
    ours.events()
    return ours, theirs
