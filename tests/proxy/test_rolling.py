"""A sidecar is replaced by another behind the same address, under load, and nobody who uses it notices."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading

import pytest

# How late the address hears of readiness: kube-proxy is slower, and --drain-quiet longer by as much.
_LATE = 0.05
_QUIET = "0.6"


def pump(source: socket.socket, target: socket.socket) -> None:
    """Carry bytes and the end of one direction."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def carry(client: socket.socket, server: socket.socket) -> None:
    """Carry both directions to their ends."""
    back = threading.Thread(target=pump, args=(server, client), daemon=True)
    back.start()
    pump(client, server)
    back.join()
    client.close()
    server.close()


class Service:
    """The address of a Service: a new connection goes to one of the pods that were ready a moment ago, in turn."""

    def __init__(self) -> None:
        self.pods: list = []
        self._ready: list[int] = []
        self._carriers: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self._listener.getsockname()[1]
        self._ended = threading.Event()
        for target in (self._watch, self._serve):
            threading.Thread(target=target, daemon=True).start()

    def close(self) -> None:
        self._ended.set()
        self._listener.shutdown(socket.SHUT_RDWR)  # which wakes the thread that accepts
        self._listener.close()
        for carrier in self._carriers:
            carrier.join(15)

    def sees(self, pods) -> bool:
        """Whether it is these that new connections go to."""
        return self._ready == [pod.port("inbound") for pod in pods]

    def _watch(self) -> None:
        while not self._ended.wait(_LATE):
            self._ready = [pod.port("inbound") for pod in self.pods if self._is_ready(pod)]

    def _is_ready(self, pod) -> bool:
        try:
            return pod.get("health", "/healthz/ready")[0] == 200
        except OSError:
            return False

    def _serve(self) -> None:
        number = 0
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                number += 1
                server = socket.create_connection(("127.0.0.1", self._ready[number % len(self._ready)]))
                carrier = threading.Thread(target=carry, args=(client, server), daemon=True)
                carrier.start()
                self._carriers.append(carrier)


class Load:
    """Requests, one after the other, each in a connection of its own."""

    def __init__(self, port: int) -> None:
        self.done = 0
        self.failures: list[str] = []
        self._port = port
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(3)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        while not self._ended.is_set():
            try:
                with socket.create_connection(("127.0.0.1", self._port), timeout=15) as sock:
                    sock.sendall(b"question")
                    sock.shutdown(socket.SHUT_WR)
                    answer = b"".join(iter(lambda: sock.recv(100), b""))
                if answer != b"question":
                    self.failures.append(f"answer {answer!r}")
            except OSError as error:
                self.failures.append(repr(error))
            self.done += 1

    def end(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(20)


@pytest.fixture
def echo(application):
    """The application: it gives back what it is sent."""

    def serve():
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = application.accept()
                threading.Thread(target=carry, args=(accepted, accepted), daemon=True).start()

    def carry(accepted, _same):
        with accepted:
            pump(accepted, accepted)

    application.settimeout(None)
    threading.Thread(target=serve, daemon=True).start()
    return application.getsockname()[1]


def test_no_request_fails_while_sidecars_are_replaced_one_after_the_other(echo, inbound_sidecar, outbound_sidecar):
    def start():
        return inbound_sidecar(echo, "--drain-quiet", _QUIET)

    service = Service()
    service.pods = [start(), start()]
    load = None
    try:
        service.pods[0].wait_for(lambda: service.sees(service.pods))
        outbound = outbound_sidecar(service.port)
        load = Load(outbound.port("outbound"))
        for _ in range(2):
            oldest = service.pods[0]
            beside = [*service.pods, start()]
            service.pods = beside
            oldest.wait_for(lambda beside=beside: service.sees(beside))
            until = load.done + 20
            oldest.wait_for(lambda until=until: load.done >= until)
            oldest.process.send_signal(signal.SIGTERM)
            assert oldest.process.wait(30) == 0, oldest.messages
            assert "did not end in time" not in oldest.messages
            service.pods = beside[1:]
        until = load.done + 20
        outbound.wait_for(lambda: load.done >= until)
        served = [pod.metric("istio_tcp_connections_opened_total") for pod in service.pods]
    finally:
        if load is not None:
            load.end()
            outbound.stop()
        service.close()
    assert load.failures == []
    assert sum(served) >= 20, "the replacements were not used"
    assert outbound.lines()
    assert {line["flag"] for line in outbound.lines()} == {"-"}
