"""What the injector says of the application's probes: read strictly, and never said again with its secrets."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from injector.probes import rewrite_probes
from mesh.errors import UserError
from proxy.admin.plain import plain
from proxy.probes.questions import GrpcCheck, HttpGet, Question, TcpConnect, read_questions

LIVE = "/app-health/web/livez"


def one(handler: object, port: object = 8080, seconds: object = 3, path: str = LIVE) -> str:
    return json.dumps({path: {"handler": handler, "port": port, "timeoutSeconds": seconds}})


def test_each_kind_of_handler_is_read():
    headers = [{"name": "Host", "value": "web.example"}, {"name": "X-Key", "value": ""}]
    found = read_questions(
        json.dumps(
            {
                LIVE: {
                    "handler": {
                        "httpGet": {"path": "/up?deep=1", "port": "http", "scheme": "HTTPS", "httpHeaders": headers}
                    },
                    "port": 8443, "timeoutSeconds": 2,
                },
                "/app-health/db-0/readyz": {
                    "handler": {"tcpSocket": {"port": 5432}}, "port": 5432, "timeoutSeconds": 1
                },
                "/app-health/rpc/startupz": {
                    "handler": {"grpc": {"port": 9000, "service": "shop"}}, "port": 9000, "timeoutSeconds": 1
                },
                "/app-lifecycle/web/prestop": {
                    "handler": {"httpGet": {"path": "bye", "port": 80}}, "port": 80, "timeoutSeconds": 30
                },
            }
        )
    )  # fmt: skip

    assert found == {
        LIVE: Question(HttpGet("https", "/up?deep=1", (("Host", "web.example"), ("X-Key", ""))), 8443, 2),
        "/app-health/db-0/readyz": Question(TcpConnect(), 5432, 1),
        "/app-health/rpc/startupz": Question(GrpcCheck("shop"), 9000, 1),
        "/app-lifecycle/web/prestop": Question(HttpGet("http", "/bye"), 80, 30),
    }


def test_what_the_injector_writes_is_what_is_read():
    container = {
        "name": "web",
        "ports": [{"name": "http", "containerPort": 8080}],
        "livenessProbe": {"httpGet": {"path": "/up", "port": "http"}, "timeoutSeconds": 7},
        "readinessProbe": {"tcpSocket": {"port": 8080}},
        "startupProbe": {"grpc": {"port": 9000, "service": None}},
        "lifecycle": {"preStop": {"httpGet": {"path": "/bye", "port": 8080}}},
    }
    originals, warnings = rewrite_probes({"spec": {"containers": [container]}})

    found = read_questions(json.dumps(originals))

    assert not warnings
    assert {path: type(question.what) for path, question in found.items()} == {
        "/app-health/web/livez": HttpGet,
        "/app-health/web/readyz": TcpConnect,
        "/app-health/web/startupz": GrpcCheck,
        "/app-lifecycle/web/prestop": HttpGet,
    }
    assert found[LIVE].timeout == 7


def test_a_timeout_of_nought_is_kubernetes_default():
    assert read_questions(one({"tcpSocket": {}}, seconds=0))[LIVE].timeout == 1


def test_headers_that_frame_a_request_are_left_to_the_client():
    headers = [{"name": name, "value": "5"} for name in ("Content-Length", "transfer-encoding", "Trailer", "Accept")]
    assert read_questions(one({"httpGet": {"httpHeaders": headers}}))[LIVE].what == HttpGet(
        "http", "/", (("Accept", "5"),)
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "is no JSON object"),
        ('{"/healthz/ready": {}}', "'/healthz/ready' is none of"),
        ('{"/app-health/web/livez/x": {}}', "is none of"),
        ('{"/app-health/../livez": {}}', "is none of"),
        ('{"/app-health/web/livez\\n": {}}', "is none of"),
        (f'{{"{LIVE}": 3}}', "its value is no JSON object"),
        (f'{{"{LIVE}": {{}}}}', "its handler is no JSON object"),
        (one({}), "is not one of httpGet"),
        (one({"tcpSocket": {}, "grpc": {}}), "is not one of httpGet"),
        (one({"exec": {}}), "'exec' is none of"),
        (one({"httpGet": 3}), "httpGet is no JSON object"),
        (one({"httpGet": {"scheme": "FTP"}}), "neither HTTP nor HTTPS"),
        (one({"httpGet": {"host": "10.0.0.1"}}), "it names a host"),
        (one({"tcpSocket": {"host": "169.254.169.254"}}), "it names a host"),
        (one({"httpGet": {"path": 3}}), "path is no text"),
        (one({"httpGet": {"path": "/" * 8001}}), "path is no text of at most 8000"),
        (one({"httpGet": {"path": "/\ud800"}}), "half a character"),
        (one({"grpc": {"service": []}}), "service is no text"),
        (one({"httpGet": {"httpHeaders": {}}}), "httpHeaders is no list"),
        (one({"httpGet": {"httpHeaders": ["a"]}}), "a header is no JSON object"),
        (one({"httpGet": {"httpHeaders": [{"name": "a b"}]}}), "not one of HTTP"),
        (one({"httpGet": {"httpHeaders": [{"value": "a"}]}}), "not one of HTTP"),
        (one({"httpGet": {"httpHeaders": [{"name": "a", "value": "b\r\nc: d"}]}}), "not one of HTTP"),
        (one({"tcpSocket": {}}, port=0), "port is no whole number from 1 to 65535"),
        (one({"tcpSocket": {}}, port=65536), "port is no whole number"),
        (one({"tcpSocket": {}}, port="80"), "port is no whole number"),
        (one({"tcpSocket": {}}, port=True), "port is no whole number"),
        (one({"tcpSocket": {}}, port=80.0), "port is no whole number"),
        (one({"tcpSocket": {}}, seconds=-1), "timeoutSeconds is no whole number"),
        (one({"tcpSocket": {}}, seconds=2**31), "timeoutSeconds is no whole number"),
        (one({"tcpSocket": {}}, seconds=None), "timeoutSeconds is no whole number"),
    ],
)  # fmt: skip
def test_what_is_broken_is_one_line(text, expected):
    with pytest.raises(UserError, match=re.escape(expected)) as refused:
        read_questions(text)
    (line,) = str(refused.value).splitlines()
    assert line.startswith("QBITEL_APP_PROBES of the environment: ")
    assert len(line) < 300


def test_a_header_s_value_is_shown_to_nobody():
    secret = "Bearer hunter2"
    handler = {"httpGet": {"httpHeaders": [{"name": "Authorization", "value": secret}]}}
    (question,) = found = read_questions(one(handler)).values()
    assert secret in str(question.what.headers)
    assert secret not in repr(found)
    assert secret not in json.dumps(plain(dict(enumerate(found))))
    with pytest.raises(UserError) as refused:
        read_questions(one({"httpGet": {"httpHeaders": [{"name": "Authorization", "value": f"{secret}\n"}]}}))
    assert secret not in str(refused.value)


WHOLE = one({"httpGet": {"path": "/up", "httpHeaders": [{"name": "Host", "value": "a"}], "scheme": "HTTPS"}}).encode()


def read_or_refused(text: str) -> None:
    try:
        found = read_questions(text)
    except UserError:
        return
    for question in found.values():
        assert 1 <= question.port <= 65535
        assert question.timeout >= 1


@pytest.mark.parametrize("end", range(len(WHOLE)))
def test_a_text_that_is_cut_or_has_a_byte_flipped_is_refused_or_read(end):
    read_or_refused(WHOLE[:end].decode())
    for bit in range(8):
        flipped = bytearray(WHOLE)
        flipped[end] ^= 1 << bit
        read_or_refused(flipped.decode("utf-8", "surrogateescape"))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.sampled_from(
        ["httpGet", "tcpSocket", "grpc", "path", "scheme", "httpHeaders", "name", "value", "host", "service"]
    ), inner, max_size=4), max_leaves=12,
)  # fmt: skip


@given(st.text() | st.builds(one, VALUES, VALUES, VALUES))
def test_whatever_is_written_there_is_refused_or_read(text):
    read_or_refused(text)
