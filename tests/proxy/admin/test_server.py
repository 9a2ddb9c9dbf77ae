"""The admin port: who may ask, what is answered, and one answer for all workers."""

from __future__ import annotations

import asyncio
import json

import pytest

from proxy.admin.http_request import Request
from proxy.admin.server import AdminServer, Overview, why_foreign


def nothing_fails(_task) -> None:
    """Nothing is started."""


def request(path: str, method: str = "GET", host: str = "localhost:15000", **headers: str) -> Request:
    path, _, query = path.partition("?")
    parameters = dict(pair.split("=") for pair in query.split("&")) if query else {}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request(method, path, parameters, {"host": host, **named})


@pytest.fixture
def ask():
    """Ask a server whose workers give these answers; (status, body), and what the workers were asked."""

    def go(question: Request, *answers, obstacle: str = ""):
        asked = []

        async def workers(name, parameters):
            asked.append((name, dict(parameters)))
            return answers

        overview = Overview({"mode": "STRICT"}, "1.2.3", ("0.0.0.0:15090",), lambda: obstacle)
        server = AdminServer(workers, overview, nothing_fails)
        answer = asyncio.run(server._on_request(question))
        return answer.status, answer.body.decode(), asked

    return go


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:15000", "127.0.0.1", "127.0.0.1:15000", "[::1]", "[::1]:15000", "127.8.9.1:1", ""]
)
def test_whoever_names_this_machine_is_answered(host):
    assert why_foreign(request("/", host=host)) is None


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:15000", "10.0.0.1:15000", "localhost.evil.example", "localhost:x", "[::1"),
        *("127.0.0.1.evil.example:15000", "[fe80::1]:15000", "0.0.0.0:15000", "@localhost", "localhost:15000:1"),
    ],
)
def test_a_name_that_only_leads_here_is_refused(host, ask):
    status, _, asked = ask(request("/connections", host=host))
    assert (status, asked) == (403, [])


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"}, {"origin": "null"}, {"origin": "http://localhost:3000"},
        {"sec_fetch_site": "cross-site"}, {"sec_fetch_site": "same-site"},
    ],
)  # fmt: skip
def test_pages_of_other_sites_can_neither_read_nor_command(headers, ask):
    for method, path in (("POST", "/quitquitquit"), ("GET", "/certs")):
        status, _, asked = ask(request(path, method, **headers))
        assert (status, asked) == (403, [])


def test_its_own_origin_is_none_of_them(ask):
    own = {"origin": "http://localhost:15000", "sec_fetch_site": "same-origin"}
    assert ask(request("/drain", "POST", **own), {"pid": 1})[0] == 200


@pytest.mark.parametrize("path", ["/drain", "/quitquitquit", "/logging?level=debug"])
def test_what_changes_anything_must_be_posted(path, ask):
    assert ask(request(path))[::2] == (405, [])
    status, _, asked = ask(request(path, "POST"), {"pid": 1})
    assert (status, asked[0][0]) == (200, path.partition("?")[0][1:])


@pytest.mark.parametrize(("method", "path"), [("POST", "/connections"), ("POST", "/"), ("DELETE", "/drain")])
def test_what_only_reads_is_not_posted(method, path, ask):
    assert ask(request(path, method))[::2] == (405, [])


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_unknown_page_lists_the_known_ones(method, ask):
    status, body, _ = ask(request("/clusters", method))
    assert status == 404
    assert "/connections" in body


def test_tables_of_all_workers_are_one_page_by_page(ask):
    def rows(*names):
        return {"total": 5, "rows": [{"source": name, "direction": "inbound"} for name in names]}

    status, body, asked = ask(request("/connections?offset=1&limit=2"), rows("a", "b"), rows("c", "d"))
    found = json.loads(body)
    assert (status, found["total"], [row["source"] for row in found["rows"]]) == (200, 10, ["b", "c"])
    assert asked == [("connections", {"offset": "1", "limit": "2"})]
    text = ask(request("/connections?format=text"), rows("a"))[1]
    assert text.splitlines()[0].split() == ["DIRECTION", "SOURCE"]


def test_a_worker_without_an_answer_is_counted_and_not_hidden(ask):
    _, body, _ = ask(request("/memory"), {"pid": 1}, None)
    assert json.loads(body) == {"workers": [{"pid": 1}], "workers_without_an_answer": 1}


def test_a_refusal_of_a_worker_is_the_answer(ask):
    assert ask(request("/logging?level=loud", "POST"), {"refused": "no such level"})[:2] == (400, "no such level\n")
    assert ask(request("/connections?limit=x"))[0] == 400


def test_the_configuration_stands_beside_what_workers_have_loaded(ask):
    found = json.loads(ask(request("/config_dump"), {"pid": 1, "policy": {"generation": 2}})[1])
    assert (found["version"], found["config"]["mode"]) == ("1.2.3", "STRICT")
    assert found["workers"][0]["policy"]["generation"] == 2
    assert "  mode: STRICT" in ask(request("/config_dump?format=text"), {"pid": 1})[1]


def test_readiness_says_which_obstacle(ask):
    assert ask(request("/ready"))[:2] == (200, "ready\n")
    assert ask(request("/ready"), obstacle="no policies")[:2] == (503, "no policies\n")


def test_statistics_are_where_prometheus_finds_them(ask):
    assert ask(request("/stats"))[1] == "http://0.0.0.0:15090/metrics\n"


def test_the_front_page_lists_everything(ask):
    body = ask(request("/"))[1]
    assert all(path in body for path in ("/certs", "POST  /drain", "GET   /tunnels"))
