"""tlsfuzzer's scripts for TLS 1.3 against `qbitel tunnel server --profile compat`, which demands a client certificate.

The scripts are run as they are, in the world that peers/tlsfuzzer_driver.py makes around them. Which scripts are not
here, and why, is in docs/interop.md.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import re
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.foreign.conftest import Mesh, identity
from tests.foreign.processes import Tunnel
from tests.support.pki import Issued, make_certificate, uri

Program = tuple[Path, ...]

_DAY: Final = datetime.timedelta(days=1)
# The longest of them make some hundred connections.
_SECONDS: Final = 120

# Script → its arguments. "{cert}" and "{key}" are the client's. `-e` leaves a probe out, and each has its reason.
SCRIPTS: Final = {
    "tls13_ccs": "",
    # Its client sends no psk_key_exchange_modes, and such a client gets no tickets of ours (RFC 8446 §4.2.9).
    "tls13_connection_abort": "-e 'After NewSessionTicket'",
    "tls13_conversation": "",
    "tls13_count_tickets": "",
    # The probe that is left out expects the schemes of a server that takes RSA too.
    "tls13_ecdsa_in_certificate_verify": "-k {key} -c {cert} -e 'check sigalgs in cert request'",
    "tls13_empty_alert": "",
    # The probe that is left out sends 16 MB behind the fault. After an alert we listen on for a second at most: what
    # is then still under way meets a reset, which may overtake the alert.
    "tls13_finished": "-e 'padding - cipher TLS_AES_256_GCM_SHA384, pad_byte 0, pad_left 0, pad_right 16777167'",
    "tls13_finished_plaintext": "",
    "tls13_hrr": "",
    "tls13_invalid_ciphers": "",
    "tls13_keyshare_omitted": "",
    "tls13_legacy_version": "",
    # Two are left out: one expects an answer to half a request, where our application answers whole ones; the other one
    # KeyUpdate of ours for each that was asked for, where one for all is enough (RFC 8446 §4.6.3).
    "tls13_keyupdate": "-e 'app data split, conversation with KeyUpdate msg' -e 'multiple KeyUpdate messages'",
    "tls13_mlkem": "--kems x25519mlkem768",
    "tls13_nociphers": "",
    "tls13_pkcs_signature": "",
    # With a share of ML-KEM in it, the padding makes that hello longer than one record, and the script sends it as one.
    "tls13_record_layer_limits": "-e 'max size of ClientHello msg, with 16167 bytes of padding'",
    "tls13_record_padding": "",
    # A ClientHello of more than 32 KiB is refused.
    "tls13_shuffled_extentions": "",
    "tls13_signature_algorithms": " ".join(
        f"-e 'tolerance {number} methods' -e 'duplicated {number} non-rsa schemes' -e '{number} invalid schemes'"
        for number in (23752, 23754, 32715, 32717)
    )
    + " -e 'tolerance 32715 methods with sig_alg_cert'",
    "tls13_unencrypted_alert": "",
    "tls13_zero_content_type": "",
    "tls13_zero_length_data": "",
}


@dataclass(frozen=True, slots=True)
class Target:
    """A tunnel's server, and the client's credential for it."""

    port: int
    client: Path


class _Answer(socketserver.BaseRequestHandler):
    """Answers each request that ends in an empty line, whatever it asks for, and goes when the client goes."""

    def handle(self) -> None:
        request = b""
        with contextlib.suppress(ConnectionError):  # scripts that abort connections are what this is for
            while data := self.request.recv(65536):
                request += data
                if request.endswith(b"\r\n\r\n"):
                    request = b""
                    self.request.sendall(b"HTTP/1.0 200 OK\r\n\r\n")


class _Application(socketserver.ThreadingTCPServer):
    daemon_threads = True


@pytest.fixture(scope="module")
def application() -> Iterator[int]:
    with _Application(("127.0.0.1", 0), _Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def classical(tmp_path_factory: pytest.TempPathFactory) -> Mesh:
    """Certificates with P-256: tlsfuzzer's ML-DSA is pure Python, and some scripts make hundreds of handshakes."""
    folder = tmp_path_factory.mktemp("classical")
    root = _issue(None, "root")
    return Mesh(*(_write(folder / name, _issue(root, name), root) for name in ("server", "client", "stranger")))


def _issue(issuer: Issued | None, name: str) -> Issued:
    now = datetime.datetime.now(datetime.UTC)
    return make_certificate(
        issuer=issuer,
        subject=name,
        key=ec.generate_private_key(ec.SECP256R1()),
        is_ca=issuer is None,
        path_length=1,
        names=(uri(identity(name)),) if issuer else (),
        not_before=now - _DAY,
        not_after=now + _DAY,
    )


def _write(folder: Path, issued: Issued, root: Issued) -> Path:
    folder.mkdir()
    (folder / "tls.crt").write_bytes(issued.certificate_pem)
    (folder / "ca.crt").write_bytes(root.certificate_pem)
    (folder / "tls.key").touch(mode=0o600)
    (folder / "tls.key").write_bytes(issued.key_pem)
    return folder


@pytest.fixture(scope="module")
def target(application: int, classical: Mesh) -> Iterator[Target]:
    with Tunnel("server", application, classical.server, "compat") as tunnel:
        yield Target(tunnel.port, classical.client)


def run(tlsfuzzer: Program, target: Target, script: str, arguments: str) -> tuple[str, dict[str, int]]:
    """The script's output, and what it counted: TOTAL, PASS, FAIL …"""
    python, driver, checkout = tlsfuzzer
    cert, key = str(target.client / "tls.crt"), str(target.client / "tls.key")
    words = [
        word.strip("'").format(cert=cert, key=key) for word in re.findall(r"'[^']*'|\S+", arguments)
    ]  # not shlex: there is nothing here to escape
    options = {"cert": cert, "key": key, "arguments": ["-h", "127.0.0.1", "-p", str(target.port), *words]}
    done = subprocess.run(
        [python, driver, checkout, script, json.dumps(options)],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    counts = {name: int(number) for name, number in re.findall(r"^([A-Z]+): (\d+)$", done.stdout, re.MULTILINE)}
    assert counts, f"{script} did not come to its end:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout, counts


@pytest.mark.parametrize("script", SCRIPTS)
def test_our_server_does_what_the_script_demands(tlsfuzzer: Program, target: Target, script: str) -> None:
    output, counts = run(tlsfuzzer, target, script, SCRIPTS[script])

    assert counts["PASS"] > 0
    assert counts["FAIL"] == 0, output.partition("FAILED:")[2]
