"""rustls (through PyPI's rtls) as one end of a connection. Runs in an environment of its own.

Its one argument is a JSON object; it answers with one JSON object per line, as node_peer.js does. What goes over a
connection: eight bytes with a length, big-endian, then as many bytes, which the server sends back.
"""

import hashlib
import json
import os
import socket
import sys

import rtls

PIECE = 16384


def say(event, **facts):
    print(json.dumps({"event": event, **facts}), flush=True)


def context(options):
    server = options["role"] == "server"
    made = rtls.SSLContext(rtls.PROTOCOL_TLS_SERVER if server else rtls.PROTOCOL_TLS_CLIENT)
    made.minimum_version = rtls.TLSVersion.TLSv1_3
    made.load_verify_locations(cafile=options["ca"])
    made.verify_mode = rtls.CERT_REQUIRED
    if options.get("cert"):
        made.load_cert_chain(options["cert"], options["key"])
    return made


def connected(connection):
    certificate = connection.getpeercert(binary_form=True) or b""
    say(
        "connected",
        cipher=connection.cipher()[0],
        protocol=connection.version(),
        peer=hashlib.sha256(certificate).hexdigest(),
    )


def read(connection, size):
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def serve_one(sock, options):
    with options["context"].wrap_socket(sock, server_side=True) as connection:
        connected(connection)
        left = total = int.from_bytes(read(connection, 8), "big")
        digest = hashlib.sha256()
        while left:
            data = connection.recv(min(left, PIECE))
            if not data:
                raise EOFError
            left -= len(data)
            digest.update(data)
            connection.sendall(data)
        say("done", bytes=total, sha256=digest.hexdigest())
        connection.unwrap()


def connect_one(sock, options):
    with options["context"].wrap_socket(sock, server_hostname="localhost") as connection:
        connected(connection)
        if options.get("silent"):
            read(connection, 1)
        size = options["bytes"]
        connection.sendall(size.to_bytes(8, "big"))
        sent, back = hashlib.sha256(), hashlib.sha256()
        for start in range(0, size, PIECE):
            data = os.urandom(min(PIECE, size - start))
            connection.sendall(data)
            sent.update(data)
            back.update(read(connection, len(data)))
        if sent.digest() != back.digest():
            raise ValueError("the bytes that came back are not those that went out")
        say("done", bytes=size, sha256=back.hexdigest())


def attempt(use, sock, options):
    with sock:
        try:
            use(sock, options)
        except (rtls.SSLError, EOFError, ConnectionError) as error:
            say("error", code=str(error) or type(error).__name__)


def main(options):
    options["context"] = context(options)
    if options["role"] == "client":
        attempt(connect_one, socket.create_connection(("127.0.0.1", options["port"])), options)
        return
    with socket.create_server(("127.0.0.1", 0)) as listener:
        say("listening", port=listener.getsockname()[1])
        while True:
            attempt(serve_one, listener.accept()[0], options)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
