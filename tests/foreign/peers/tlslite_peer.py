"""tlslite-ng (pure Python, with kyber-py and dilithium-py) as one end of a connection, in an environment of its own.

Its one argument is a JSON object; it answers with one JSON object per line, as node_peer.js does. What goes over a
connection: eight bytes with a length, big-endian, then as many bytes, which the server sends back.

tlslite-ng checks no chains: what it proves is the wire, not the trust.
"""

import hashlib
import json
import os
import socket
import sys
from pathlib import Path

from tlslite.api import HandshakeSettings, TLSConnection, X509CertChain, parsePEMKey
from tlslite.errors import TLSAbruptCloseError, TLSLocalAlert, TLSRemoteAlert

# Small enough that neither side's socket buffers fill while both of them write in lock step.
PIECE = 16384


def say(event, **facts):
    print(json.dumps({"event": event, **facts}), flush=True)


def settings(options):
    chosen = HandshakeSettings()
    chosen.minVersion = chosen.maxVersion = tuple(options.get("version", (3, 4)))
    chosen.eccCurves = [options["groups"]] if isinstance(options["groups"], str) else options["groups"]
    chosen.keyShares = options.get("shares", chosen.eccCurves[:1])
    chosen.dhGroups = []
    chosen.more_sig_schemes = ["mldsa87"]
    chosen.cipherNames = [options.get("cipher", "aes256gcm")]
    if options["role"] == "server":
        chosen.ticketKeys = [bytearray(os.urandom(32))]
    return chosen


def credential(options):
    if not options.get("cert"):
        return None, None
    chain = X509CertChain()
    chain.parsePemList(Path(options["cert"]).read_text())
    return chain, parsePEMKey(Path(options["key"]).read_text(), private=True)


def connected(connection):
    chain = connection.session.clientCertChain if not connection._client else connection.session.serverCertChain
    say(
        "connected",
        resumed=connection.resumed,
        chain=len(chain.x509List) if chain else 0,
        peer_key=chain.getEndEntityPublicKey().key_type if chain else "",
        cipher=connection.getCipherName(),
    )


def read(connection, size):
    data = b""
    while len(data) < size:
        piece = bytes(connection.read(max=size - len(data), min=1))
        if not piece:
            raise EOFError
        data += piece
    return data


def serve_one(connection, options, chain, key):
    # Without protocols of its own this server stumbles over a client that offers any.
    protocols = [bytearray(options["alpn"], "ascii")]
    connection.handshakeServer(
        certChain=chain, privateKey=key, reqCert=True, settings=options["settings"], alpn=protocols
    )
    connected(connection)
    left = int.from_bytes(read(connection, 8), "big")
    total, digest = left, hashlib.sha256()
    while left:
        data = bytes(connection.read(max=min(left, PIECE), min=1))
        if not data:
            raise EOFError
        digest.update(data)
        left -= len(data)
        connection.write(data)
    connection.close()
    say("done", bytes=total, sha256=digest.hexdigest())


def serve(options):
    chain, key = credential(options)
    options["settings"] = settings(options)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        say("listening", port=listener.getsockname()[1])
        while True:
            attempt(lambda sock: serve_one(TLSConnection(sock), options, chain, key), listener.accept()[0])


def connect_one(connection, options, session):
    chain, key = credential(options)
    connection.handshakeClientCert(chain, key, session=session, settings=settings(options))
    connected(connection)
    size = options["bytes"]
    sent, back = hashlib.sha256(), hashlib.sha256()
    if options.get("silent"):
        read(connection, 1)
    connection.write(size.to_bytes(8, "big"))
    for start in range(0, size, PIECE):
        if start == PIECE and options.get("update_keys"):
            for _ in connection.send_keyupdate_request(1):  # update_requested
                pass
        data = os.urandom(min(PIECE, size - start))
        sent.update(data)
        connection.write(data)
        back.update(read(connection, len(data)))
    connection.close()
    if sent.digest() != back.digest():
        raise ValueError("the bytes that came back are not those that went out")
    say("done", bytes=size, sha256=back.hexdigest(), tickets=len(connection.session.tickets or ()))
    return connection.session


def connect(options):
    session = None
    for _ in range(options.get("connections", 1)):
        sock = socket.create_connection(("127.0.0.1", options["port"]))
        session = attempt(lambda sock, session=session: connect_one(TLSConnection(sock), options, session), sock)


def attempt(use, sock):
    with sock:
        try:
            return use(sock)
        except TLSRemoteAlert as alert:
            say("error", code=f"alert {alert.description}")
        except TLSLocalAlert as alert:
            say("error", code=f"sent {alert.description}: {alert.message}")
        except (TLSAbruptCloseError, EOFError, ConnectionError) as error:
            say("error", code=type(error).__name__)
    return None


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    serve(given) if given["role"] == "server" else connect(given)
