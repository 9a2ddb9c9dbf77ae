"""Probes over HTTP and HTTPS of real applications, as the kubelet makes them."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh import names
from proxy.probes.http_get import ask_http
from proxy.probes.outcome import NoAnswer
from proxy.probes.questions import HttpGet
from tests.proxy.probes.conftest import PATIENCE, Application, head_of, saying

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
AGENT = "kube-probe/1.31"
UP = HttpGet("http", "/up")


@pytest.fixture
def ask(run):
    """Ask an application once; (status, location), or the words of the failure."""

    def go(application, question: HttpGet = UP):
        async def main():
            try:
                outcome = await ask_http(question, application.host, application.port, AGENT)
            except (NoAnswer, OSError) as failure:
                return str(failure)
            return outcome.status, outcome.location

        return run(main())

    return go


def lines(application) -> list[str]:
    return application.heard[0].decode().split("\r\n")[:-2]


@pytest.mark.parametrize("status", [200, 204, 299, 304, 399, 404, 500, 599])
def test_the_application_s_status_is_the_answer(ask, application, status):
    assert ask(application(b"HTTP/1.1 %d Word\r\nConnection: close\r\n\r\n" % status)) == (status, "")


def test_the_application_hears_what_the_kubelet_would_have_said(ask, application):
    server = application(OK)
    ask(server, HttpGet("http", "/up%2Fall?deep=1&x=%26"))
    first, *headers = lines(server)
    assert first == "GET /up%2Fall?deep=1&x=%26 HTTP/1.1"
    assert sorted(headers) == [
        "Accept: */*", "Connection: close", f"Host: 127.0.0.1:{server.port}", f"User-Agent: {AGENT}",
    ]  # fmt: skip
    assert server.callers == ["127.0.0.6"]


def test_headers_of_the_probe_are_sent_host_included(ask, application):
    server = application(OK)
    headers = (("Host", "web.example"), ("X-Twice", "a"), ("X-Twice", "b"), ("accept", ""), ("User-Agent", "me"))
    ask(server, HttpGet("http", "/", headers))
    assert sorted(lines(server)[1:]) == [
        "Connection: close", "Host: web.example", "User-Agent: me", "X-Twice: a", "X-Twice: b",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "path", ["/a b", "/ä", "/a\r\nX-Evil: 1", "/%zz", "//elsewhere.example/", "/@elsewhere.example"]
)
def test_no_path_leads_elsewhere_or_adds_a_header(ask, application, path):
    server = application(OK)
    assert ask(server, HttpGet("http", path)) == (200, "")
    assert not any("Evil" in line.partition(":")[0] for line in lines(server)[1:])
    assert f"Host: 127.0.0.1:{server.port}" in lines(server)


def test_over_https_no_certificate_is_verified(ask, application, classical_tls):
    server = application(OK, context=classical_tls)
    assert ask(server, HttpGet("https", "/up")) == (200, "")
    assert lines(server)[0] == "GET /up HTTP/1.1"


def test_https_to_an_application_that_speaks_plain_http_is_no_answer(ask, application):
    def plain(_, sock):
        sock.recv(4096)
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")

    assert isinstance(ask(application(plain), HttpGet("https", "/up")), str)


def test_an_application_at_an_address_of_ipv6_is_asked(ask, application):
    server = application(OK, family=socket.AF_INET6)
    assert ask(server) == (200, "")
    assert f"Host: [::1]:{server.port}" in lines(server)


def test_of_a_long_body_only_its_beginning_is_read(ask, application):
    given_up = threading.Event()

    def endless(_, sock):
        head_of(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                sock.send(bytes(65536))
        given_up.set()

    assert ask(application(endless)) == (200, "")
    assert given_up.wait(PATIENCE)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"", "closed the connection before it answered"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "closed the connection before it answered"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", "none of HTTP: peer closed connection"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "none of HTTP"),
        (b"220 mail.example ESMTP\r\n\r\n", "none of HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000 + b"\r\n\r\n", "none of HTTP"),
        (b"HTTP/1.1 302 Found\r\nLocation: ftp://127.0.0.1/\r\n\r\n", "where no application answers"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:99999/\r\n\r\n", "Port out of range"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://[::1/\r\n\r\n", "Invalid IPv6 URL"),
    ],
)
def test_what_is_no_whole_answer_is_said(ask, application, answer, expected):
    said = ask(application(answer))
    assert isinstance(said, str)
    assert expected in said
    assert said.isprintable()


@pytest.mark.parametrize("port", [names.ADMIN_PORT, names.HEALTH_PORT, names.METRICS_PORT])
def test_no_redirect_leads_to_the_sidecar_itself(ask, application, port):
    answer = b"HTTP/1.1 307 Go\r\nLocation: http://127.0.0.1:%d/quitquitquit\r\n\r\n" % port
    assert "where no application answers" in ask(application(answer))


def test_redirects_inside_the_pod_are_followed(ask, application):
    second = application(b"HTTP/1.1 418 Here\r\nConnection: close\r\n\r\n")

    def first_talk(server, sock):
        head = head_of(sock)
        server.heard.append(head)
        there = b"/two" if b"GET /up" in head else b"http://127.0.0.1:%d/three" % second.port
        sock.sendall(b"HTTP/1.1 302 Found\r\nLocation: %s\r\nConnection: close\r\n\r\n" % there)

    first = application(first_talk)
    assert ask(first, HttpGet("http", "/up", (("Host", "web.example"), ("X-Key", "k")))) == (418, "")
    # As Go's client, the kubelet's: the Host that it was told goes with a path alone, not to another address.
    assert [b"Host: web.example" in head for head in (*first.heard, *second.heard)] == [True, True, False]
    assert b"X-Key: k" in second.heard[0]
    assert b"GET /three" in second.heard[0]


def test_a_redirect_to_another_host_is_the_kubelet_s_to_judge(ask, application):
    for location in (b"http://elsewhere.example/up", b"https://10.0.0.1:15000/", b"//localhost/x"):
        server = application(b"HTTP/1.1 302 Found\r\nLocation: %s\r\nConnection: close\r\n\r\n" % location)
        status, there = ask(server)
        assert status == 302
        assert there.endswith(location.decode())
        assert len(server.heard) == 1


def test_a_place_that_is_no_ascii_is_passed_on_as_a_url(ask, application):
    server = application(b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere.example/\xe4 b?d#c\r\n\r\n")
    assert ask(server) == (302, "http://elsewhere.example/%C3%A4%20b?d#c")


def test_a_redirect_without_a_place_is_passed_on(ask, application):
    assert ask(application(b"HTTP/1.1 302 Found\r\nConnection: close\r\n\r\n")) == (302, "")


def test_an_application_that_redirects_for_ever_is_given_up(ask, application):
    server = application(b"HTTP/1.1 302 Found\r\nLocation: /up\r\nConnection: close\r\n\r\n")
    assert "more than 10 times" in ask(server)
    assert len(server.heard) == 11


def test_no_cookie_is_kept_from_question_to_question(run, application):
    server = application(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nConnection: close\r\n\r\n")

    async def main():
        for _ in range(2):
            await ask_http(UP, server.host, server.port, AGENT)

    run(main())
    assert [b"cookie" in head.lower() for head in server.heard] == [False, False]


@settings(max_examples=30)
@given(answer=st.binary(max_size=200).map(lambda some: b"HTTP/1.1 302 Found\r\nLocation: " + some) | st.binary())
def test_whatever_an_application_says_is_an_outcome_or_no_answer(run, answer):
    server = Application(saying(answer + b"\r\n\r\n"), socket.AF_INET)

    async def main():
        try:
            outcome = await ask_http(UP, server.host, server.port, AGENT)
        except (NoAnswer, OSError):
            return
        assert 100 <= outcome.status <= 999
        assert outcome.location.isascii()
        assert outcome.location.isprintable()

    try:
        run(main())
    finally:
        server.close()
