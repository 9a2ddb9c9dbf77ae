"""Probes and hooks at the health port: of real applications, by real processes, and past real interception."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from cli.main import main as qbitel_main
from mesh.names import APP_PROBES_VARIABLE, SIDECAR_GID, SIDECAR_UID
from proxy import sockets
from proxy.admin.http_request import Request
from proxy.admin.http_server import HangUp
from proxy.config import Endpoint
from proxy.probes.answering import ProbeAnswers
from proxy.probes.questions import GrpcCheck, HttpGet, Question, TcpConnect
from proxy.status import StatusServer
from tests.proxy.probes.conftest import PATIENCE, saying, silent
from tests.proxy.probes.test_grpc_health import recorded
from tests.proxy.test_original_destination import Pod, root_only

LIVE, READY, HOOK = "/app-health/web/livez", "/app-health/web/readyz", "/app-lifecycle/web/prestop"
UP = HttpGet("http", "/up")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret"


@contextlib.asynccontextmanager
async def answering(**questions: Question):
    """The answers to LIVE, READY and HOOK, by these names; called with a path, they give (status, text)."""
    paths = {"live": LIVE, "ready": READY, "hook": HOOK}
    answers = ProbeAnswers({paths[name]: question for name, question in questions.items()})

    async def ask(path: str, agent: str = "kube-probe/1.31") -> tuple[int, str]:
        answer = await answers.answer(Request("GET", path, headers={"user-agent": agent}, local="127.0.0.1"))
        return answer.status, answer.body.decode()

    try:
        yield ask
    finally:
        await answers.close()


def grpc(status: int):
    def talk(_, sock):
        sock.recv(4096)
        sock.sendall(recorded(status))
        sock.recv(4096)  # what is acknowledged

    return talk


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def test_an_application_s_words_stay_its_own_and_its_status_is_told(run, application):
    server = application(OK)

    async def main():
        async with answering(live=Question(UP, server.port, 20)) as ask:
            return await ask(LIVE)

    assert run(main()) == (200, "the application answers 200\n")


@pytest.mark.parametrize(("status", "expected"), [(1, (200, "SERVING")), (2, (503, "NOT_SERVING"))])
def test_grpc_is_200_or_503(run, application, status, expected):
    server = application(grpc(status))

    async def main():
        async with answering(live=Question(GrpcCheck("shop"), server.port, 20)) as ask:
            return await ask(LIVE)

    assert run(main()) == (expected[0], f"the application answers {expected[1]}\n")


def test_tcp_is_200_where_somebody_listens_and_503_where_nobody_does(run, application):
    server = application(b"")

    async def main():
        async with answering(
            live=Question(TcpConnect(), server.port, 20), ready=Question(TcpConnect(), free_port(), 20)
        ) as ask:
            return await ask(LIVE), await ask(READY)

    assert run(main()) == (
        (200, "the application takes connections\n"),
        (503, "no answer of the application: Connection refused\n"),
    )


@pytest.mark.parametrize("what", [UP, GrpcCheck(), HttpGet("https", "/up")])
def test_whoever_says_nothing_in_time_has_not_answered(run, application, what):
    server = application(silent)

    async def main():
        async with answering(live=Question(what, server.port, 1)) as ask:
            return await ask(LIVE)

    assert run(main()) == (503, "no answer of the application: none within 1 s\n")


def test_nobody_waits_for_an_application_that_is_slow(run, application):
    slow, quick = application(silent), application(OK)

    async def main():
        async with answering(live=Question(UP, slow.port, 1000), ready=Question(UP, quick.port, 20)) as ask:
            waiting = asyncio.ensure_future(ask(LIVE))
            while not slow.heard:
                await asyncio.sleep(0.01)
            found = [await ask(READY) for _ in range(3)]
            assert not waiting.done()
            return {status for status, _ in found}

    assert run(main()) == {200}


@pytest.mark.parametrize("what", [UP, GrpcCheck()])
def test_whoever_closes_at_once_has_not_answered(run, application, what):
    server = application(b"")

    async def main():
        async with answering(live=Question(what, server.port, 20)) as ask:
            return await ask(LIVE)

    status, word = run(main())
    assert status == 503
    assert word.startswith("no answer of the application: ")


def test_a_hundred_who_ask_the_same_make_one_question(run, application):
    def when_released(server, sock):
        saying(OK)(server, sock) if server.gate.wait(PATIENCE) else None

    server = application(when_released)
    server.gate = threading.Event()

    async def main():
        async with answering(live=Question(UP, server.port, 20)) as ask:
            waiting = [asyncio.ensure_future(ask(LIVE)) for _ in range(100)]
            waiting[0].cancel()  # the first who asked is gone; the others get their answer all the same
            while not server.callers:
                await asyncio.sleep(0.01)
            server.gate.set()
            return await asyncio.gather(*waiting[1:]), await ask(LIVE)

    together, later = run(main())
    assert {status for status, _ in [*together, later]} == {200}
    assert len(server.callers) == 2


@pytest.mark.parametrize(
    ("agent", "heard"),
    [
        ("kube-probe/1.31", "kube-probe/1.31"),
        ("kube-lifecycle/v1.31.2+k3s1", "kube-lifecycle/v1.31.2+k3s1"),
        ("curl/8", "qbitel-probe"),
        ("kube-probe/1 evil", "qbitel-probe"),
    ],
)
def test_the_application_hears_the_kubelet_s_name_and_nobody_else_s(run, application, agent, heard):
    server = application(OK)

    async def main():
        async with answering(live=Question(UP, server.port, 20)) as ask:
            await ask(LIVE, agent)

    run(main())
    assert f"User-Agent: {heard}\r\n".encode() in server.heard[0]


def test_a_hook_that_gets_no_answer_gives_none(run):
    """The kubelet takes whatever status a hook has for success, and a broken connection for failure."""

    async def main():
        async with answering(hook=Question(UP, free_port(), 20)) as ask:
            with pytest.raises(HangUp):
                await ask(HOOK)

    run(main())


def test_what_is_under_way_at_the_end_is_given_up(run, application):
    server = application(silent)

    async def main():
        async with answering(live=Question(UP, server.port, 1000)) as ask:
            waiting = asyncio.ensure_future(ask(LIVE))
            while not server.heard:
                await asyncio.sleep(0.01)
        with pytest.raises(asyncio.CancelledError):
            await waiting

    run(main())


# Over HTTP, as the kubelet asks


def get(port: int, path: str, method: str = "GET") -> tuple[int, str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.headers.get("Location", "")


def test_at_the_port_strange_statuses_redirects_and_bare_answers_are_whole(run, application):
    bare = b"HTTP/1.1 %d X\r\nConnection: close\r\n%s\r\n"
    strange = application(bare % (299, b""))
    empty = application(bare % (204, b""))
    away = application(bare % (302, b"Location: http://elsewhere.example/\r\n"))
    paths = {f"/app-health/{name}/livez": server for name, server in
             (("strange", strange), ("empty", empty), ("away", away))}  # fmt: skip
    paths[HOOK] = None

    async def main():
        questions = {
            path: Question(UP, free_port() if server is None else server.port, 20) for path, server in paths.items()
        }
        listening = sockets.listen(Endpoint("127.0.0.1", 0))
        port = listening.getsockname()[1]
        status = StatusServer(CollectorRegistry(), lambda: "", lambda _task: None, ProbeAnswers(questions))
        status.start([], [listening])
        try:
            found = [await asyncio.to_thread(get, port, path) for path in paths if path != HOOK]
            with pytest.raises(http.client.RemoteDisconnected):
                await asyncio.to_thread(get, port, HOOK)
            posted = await asyncio.to_thread(get, port, HOOK, "POST")
            other = await asyncio.to_thread(get, port, "/app-health/other/livez")
            return found, posted[0], other[0]
        finally:
            await status.close()

    assert run(main()) == (
        [
            (299, "the application answers 299\n", ""),
            (204, "", ""),
            (302, "the application answers 302, to another host\n", "http://elsewhere.example/"),
        ],
        405,
        404,
    )


def variable(questions: dict[str, tuple[dict, int]]) -> str:
    return json.dumps(
        {path: {"handler": handler, "port": port, "timeoutSeconds": 20} for path, (handler, port) in questions.items()}
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_a_sidecar_answers_for_the_application_it_was_told_of(inbound_sidecar, application, monkeypatch, workers):
    web, rpc = application(b"HTTP/1.1 418 Teapot\r\nConnection: close\r\n\r\n"), application(grpc(1))
    secret = {"name": "Authorization", "value": "hunter2"}
    text = variable(
        {
            LIVE: ({"httpGet": {"path": "/up", "port": web.port, "httpHeaders": [secret]}}, web.port),
            READY: ({"grpc": {"port": rpc.port}}, rpc.port),
        }
    )
    monkeypatch.setenv(APP_PROBES_VARIABLE, text)
    sidecar = inbound_sidecar(web.port, "--workers", workers, "--admin", "127.0.0.1:0")

    assert sidecar.get("health", LIVE)[0] == 418
    assert sidecar.get("health", READY) == (200, "the application answers SERVING\n")
    assert sidecar.get("health", "/app-health/web/startupz")[0] == 404
    assert b"Authorization: hunter2" in web.heard[0]
    shown = sidecar.get("admin", "/config_dump")[1]
    assert LIVE in shown
    assert "hunter2" not in shown + sidecar.messages
    assert sidecar.stop() == 0


def test_a_broken_environment_is_one_line(capsys, monkeypatch):
    monkeypatch.setenv(APP_PROBES_VARIABLE, '{"/app-health/web/livez": {"handler": {"exec": {}}}}')
    assert qbitel_main(["proxy", "--no-capture", "--explicit-inbound", "127.0.0.1:0=127.0.0.1:9"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "QBITEL_APP_PROBES of the environment: /app-health/web/livez: " in line


# Behind interception, in a pod whose ports take TLS of the mesh alone

QBITEL = (sys.executable, "-c", "import sys; from cli.main import main; sys.exit(main())")
WEB = """
import http.server, socket, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(self.path[1:])); self.end_headers()
class Server(http.server.HTTPServer):
    address_family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
server = Server((sys.argv[1], 8080), Handler)
print("up", flush=True)
server.serve_forever()
"""
KUBELET = """
import http.client, sys
for port, path in ((15021, "/app-health/web/livez"), (15021, "/app-health/web/readyz"), (8080, "/234")):
    connection = http.client.HTTPConnection(sys.argv[1], port, timeout=20)
    try:
        connection.request("GET", path); print(connection.getresponse().status)
    except OSError as error:
        print(type(error).__name__)
"""


@pytest.fixture
def meshed_pod(pki, monkeypatch):
    """A pod with a sidecar and its rules, at 10.79.0.2 and fd79::2, and the node that it is joined to."""
    name = f"qb-probe-{uuid.uuid4().hex[:6]}"
    base = Path(tempfile.mkdtemp(prefix="qbitel-probes-"))  # pytest's own folder lets no other user in
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, base)
        shutil.copytree(pki.base / "api", base / "certs")
        for path in (base, base / "certs", *(base / "certs").iterdir()):
            os.chown(path, SIDECAR_UID, SIDECAR_GID)
        node, pod = (stack.enter_context(contextlib.closing(Pod(f"{name}-{what}"))) for what in ("n", "p"))
        node.run("ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth0", "netns", pod.name)
        for place, number in ((node, 1), (pod, 2)):
            place.run("ip", "link", "set", "veth0", "up")
            place.run("ip", "address", "add", f"10.79.0.{number}/24", "dev", "veth0")
            place.run("ip", "-6", "address", "add", f"fd79::{number}/64", "dev", "veth0", "nodad")
        pod.run(*QBITEL, "init")
        probes = variable(
            {LIVE: ({"httpGet": {"path": "/234", "port": 8080}}, 8080), READY: ({"tcpSocket": {"port": 8080}}, 8080)}
        )
        monkeypatch.setenv(APP_PROBES_VARIABLE, probes)
        with (base / "err").open("wb") as err:
            sidecar = pod.start(
                "setpriv", "--reuid", SIDECAR_UID, "--regid", SIDECAR_GID, "--clear-groups", *QBITEL, "proxy",
                "--certs", base / "certs", stdout=subprocess.DEVNULL, stderr=err,
            )  # fmt: skip
        deadline = time.monotonic() + 60
        while " INFO ready: " not in (base / "err").read_text():
            assert time.monotonic() < deadline, (base / "err").read_text()
            assert sidecar.poll() is None, (base / "err").read_text()
            time.sleep(0.05)
        yield node, pod


@root_only
def test_under_strict_the_kubelet_hears_of_the_application_by_the_sidecar_alone(meshed_pod):
    node, pod = meshed_pod
    for address in ("10.79.0.2", "fd79::2"):
        server = pod.start(sys.executable, "-c", WEB, address, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert server.stdout.readline() == "up\n"
        assert node.run(sys.executable, "-c", KUBELET, address).split() == ["234", "200", "ConnectionResetError"]
        server.kill()
        server.wait()
        assert node.run(sys.executable, "-c", KUBELET, address).split()[:2] == ["503", "503"]
