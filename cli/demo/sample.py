"""The sample application of the demo: an HTTP/1.1 server that knows nothing of TLS, certificates or the mesh.

GET  /small          a line of text, with the marker
GET  /file?bytes=N   N bytes; their SHA-256 is written to stdout when they have been sent
POST /echo           the request's body comes back
"""

from __future__ import annotations

import argparse
import hashlib
import json
import socket
import sys
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from urllib.parse import parse_qs, urlsplit

from cli.demo.content import MAX_FILE_SIZE, Markers, file_blocks

MAX_BODY: Final = 1 << 20


class SampleServer(ThreadingHTTPServer):
    """Threaded, keep-alive; `markers` is what its answers carry."""

    daemon_threads = True
    request_queue_size = 256  # the demo opens connections in bursts

    def __init__(self, address: tuple[str, int], markers: Markers) -> None:
        self.markers = markers
        self.output = threading.Lock()
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # http.server looks its own name up in DNS here; a pod of the demo has none, and would wait for it.
        socket.socket.bind(self.socket, self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: object, client_address: object) -> None:
        """Say in one line that a client went away; anything else is a bug and keeps its traceback."""
        if isinstance(sys.exc_info()[1], OSError):
            sys.stderr.write(f"connection from {client_address} broke: {sys.exc_info()[1]}\n")
        else:
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def say(self, **event: object) -> None:
        """Write one JSON line to stdout."""
        with self.output:
            print(json.dumps(event), flush=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16  # head and a small body leave in one segment
    server: SampleServer
    server_version = "sample/1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/file":
            self._send_file(parse_qs(url.query).get("bytes", ["0"])[0])
        elif url.path in ("/", "/small"):
            self._send(200, b"hello from the sample server: " + self.server.markers.response + b"\n")
        else:
            self._send(404, b"there are /small, /file?bytes=N and /echo\n")

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if self.path != "/echo" or not length.isdigit() or int(length) > MAX_BODY:
            self.close_connection = True  # the body has not been read
            self._send(400, b"POST /echo with a Content-Length of at most 1 MiB\n")
            return
        self._send(200, self.rfile.read(int(length)))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
        """Keep the log of requests out of the demo's output."""

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _send_file(self, size: str) -> None:
        if not size.isdigit() or not 0 < int(size) <= MAX_FILE_SIZE:
            self._send(400, b"/file?bytes=N, N from 1 to 2^34\n")
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", size)
        self.end_headers()
        digest = hashlib.sha256()
        for block in file_blocks(self.server.markers, int(size)):
            digest.update(block)
            self.wfile.write(block)
        self.wfile.flush()
        self.server.say(event="file_sent", bytes=int(size), sha256=digest.hexdigest())


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until killed."""
    parser = argparse.ArgumentParser(prog="sample")
    parser.add_argument("--host", default="0.0.0.0")  # noqa: S104  # a pod's server listens on all its addresses
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--token", required=True)
    options = parser.parse_args(arguments)
    with SampleServer((options.host, options.port), Markers(options.token)) as server:
        server.say(event="ready", port=server.server_port)
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
