"""An application, and a source of bulk, as processes of their own: what they cost must not delay what is measured.

elsewhere.py serve              print a port; echo to whoever begins with "e", read away what all others send
elsewhere.py pour PORT SIZE N   N connections that send pieces of SIZE bytes for ever; print the bytes at the end
"""

from __future__ import annotations

import socket
import sys
import threading


def _serve() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        print(listener.getsockname()[1], flush=True)
        while True:
            sock, _ = listener.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=_answer, args=(sock,), daemon=True).start()


def _answer(sock: socket.socket) -> None:
    with sock:
        echoes = sock.recv(1) == b"e"
        while data := sock.recv(1 << 18):
            if echoes:
                sock.sendall(data)


def _pour(port: int, size: int, count: int) -> None:
    sent = [0] * count

    def one(number: int) -> None:
        block = bytes(size)
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(b"d")
            while True:
                sock.sendall(block)
                sent[number] += size

    for number in range(count):
        threading.Thread(target=one, args=(number,), daemon=True).start()
    sys.stdin.read()  # until whoever started us has seen enough
    print(sum(sent), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        _serve()
    else:
        _pour(*map(int, sys.argv[2:]))
