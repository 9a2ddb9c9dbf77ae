"""The webhook over real TLS, asked as the API server asks."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from injector import connections, webhook
from injector.inject import Injector
from injector.serving_certificate import ServingFiles
from injector.webhook import LARGE_REVIEW, LARGEST_REVIEW, MAX_LARGE
from injector.webhook_configuration import LABELLED_NAMESPACE_PATH, LABELLED_POD_PATH
from tests.injector.rig import injector, pod
from tests.injector.serving import Client, serving, write_certificate
from tests.injector.test_review import review


@pytest.fixture
def files(tmp_path: Path) -> ServingFiles:
    return write_certificate(tmp_path)


async def asked(
    files: ServingFiles, body: bytes, path: str = LABELLED_NAMESPACE_PATH, **headers: str
) -> tuple[int, Any]:
    async with serving(files) as client:
        return await client.ask(body, path, **headers)


WHOLE = json.dumps(review(pod())).encode()


def test_a_pod_of_a_labelled_namespace_gets_its_patch(files: ServingFiles) -> None:
    status, answer = asyncio.run(asked(files, WHOLE))

    assert (status, answer["response"]["allowed"], answer["response"]["patchType"]) == (200, True, "JSONPatch")


def test_the_path_says_what_the_api_server_has_found(files: ServingFiles) -> None:
    _, answer = asyncio.run(asked(files, WHOLE, LABELLED_POD_PATH))

    assert "patch" not in answer["response"]


def test_ten_megabytes_are_refused_in_kubernetes_own_words(files: ServingFiles) -> None:
    status, answer = asyncio.run(asked(files, b" " * (10 << 20)))

    assert (status, answer["kind"], answer["reason"]) == (413, "Status", "RequestEntityTooLarge")


def test_the_largest_review_that_may_come_is_answered(files: ServingFiles) -> None:
    status, answer = asyncio.run(asked(files, WHOLE + b" " * (LARGEST_REVIEW - len(WHOLE))))

    assert (status, answer["response"]["allowed"]) == (200, True)


@pytest.mark.parametrize("kind", ["text/plain", "application/yaml", ""])
def test_another_content_type_is_refused(files: ServingFiles, kind: str) -> None:
    status, answer = asyncio.run(asked(files, WHOLE, **{"Content-Type": kind}))

    assert (status, answer["kind"]) == (415, "Status")


@pytest.mark.parametrize(("path", "expected"), [("/", 404), ("/inject", 404), ("/healthz/ready", 405)])
def test_another_path_or_method_is_refused(files: ServingFiles, path: str, expected: int) -> None:
    status, answer = asyncio.run(asked(files, WHOLE, path))

    assert (status, answer["kind"]) == (expected, "Status")


def test_garbage_and_a_bug_of_ours_refuse_the_pod_and_the_next_review_is_answered(
    files: ServingFiles, caplog: pytest.LogCaptureFixture
) -> None:
    fails = [True, False]

    def script(_: object) -> str:
        if fails.pop(0):
            raise ZeroDivisionError
        return "rules"

    sound = injector()
    broken = Injector(config=sound.config, render_script=script, version="0")

    async def talk() -> list[tuple[int, Any]]:
        async with serving(files, broken) as client:
            return [await client.ask(body) for body in (b"{", WHOLE, WHOLE)]

    with caplog.at_level(logging.INFO, logger="qbitel.injector"):
        garbage, bug, good = asyncio.run(talk())

    assert (garbage[0], garbage[1]["kind"]) == (400, "Status")
    assert (bug[0], bug[1]["kind"]) == (500, "Status")
    assert (good[0], good[1]["response"]["allowed"]) == (200, True)
    assert "a bug kept a review from being answered" in caplog.text
    assert "injected shop/web" in caplog.text


def test_the_kubelet_finds_it_alive_and_ready(files: ServingFiles) -> None:
    async def talk() -> list[tuple[int, str]]:
        async with serving(files) as client:
            return [await client.get("/healthz/live"), await client.get("/healthz/ready")]

    assert asyncio.run(talk()) == [(200, "ok\n"), (200, "ok\n")]


WHOLE_REQUEST = (
    f"POST {LABELLED_NAMESPACE_PATH} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    f"Content-Length: {len(WHOLE)}\r\nConnection: close\r\n\r\n"
).encode() + WHOLE


async def said(client: Client, request: bytes, *, ends: bool = True) -> bytes:
    """What comes back for these bytes until the end; `ends`: nothing more will be sent."""
    reader, writer = await client.connect()
    try:
        writer.write(request)
        await writer.drain()
        if ends and writer.can_write_eof():
            writer.write_eof()
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


def body_of(answer: bytes) -> Any:
    """The JSON of one answer."""
    return json.loads(answer.partition(b"\r\n\r\n")[2])


def test_half_a_body_and_silence_is_answered_and_ends(files: ServingFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "BODY_SECONDS", 0.1)

    async def talk() -> tuple[bytes, Any]:
        async with serving(files) as client:
            answer = await said(client, WHOLE_REQUEST[: -len(WHOLE) // 2])
            monkeypatch.setattr(webhook, "BODY_SECONDS", 60.0)
            return answer, await client.ask(WHOLE)

    answer, after = asyncio.run(talk())

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert (body_of(answer)["kind"], body_of(answer)["reason"]) == ("Status", "Timeout")
    assert after[1]["response"]["allowed"]


def test_what_is_no_http_is_refused_in_kubernetes_own_words_and_leaves_no_traceback(
    files: ServingFiles, caplog: pytest.LogCaptureFixture
) -> None:
    async def talk() -> list[bytes]:
        async with serving(files) as client:
            return [
                await said(client, request)
                for request in (b"\x16\x03\x01 nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"POST\r\n\r\n")
            ]

    with caplog.at_level(logging.INFO):
        answers = asyncio.run(talk())

    for answer in answers:
        assert answer.split()[1] == b"400"
        assert body_of(answer)["reason"] == "BadRequest"
    assert "Traceback" not in caplog.text
    assert "nonsense" not in caplog.text


def test_a_body_of_another_length_than_it_says_is_never_let_through(files: ServingFiles) -> None:
    head, _, _ = WHOLE_REQUEST.partition(b"\r\n\r\n")

    def with_length(text: str) -> bytes:
        return head.replace(f"Content-Length: {len(WHOLE)}".encode(), text.encode()) + b"\r\n\r\n" + WHOLE

    async def talk() -> list[bytes]:
        async with serving(files) as client:
            lengths = ("Content-Length: -1", "Content-Length: x", f"Content-Length: {len(WHOLE) - 9}", "X: y")
            both = f"Content-Length: {len(WHOLE)}\r\nTransfer-Encoding: chunked"
            return [await said(client, with_length(text)) for text in (*lengths, both, "Content-Encoding: gzip")]

    for answer in asyncio.run(talk()):
        assert answer.split()[1] in (b"400", b"413")
        assert b'"kind":"Status"' in answer


def test_a_body_that_is_said_to_be_too_large_is_not_waited_for(files: ServingFiles) -> None:
    head = f"POST {LABELLED_NAMESPACE_PATH} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {1 << 40}\r\n\r\n{{".encode()

    async def talk() -> bytes:
        async with serving(files) as client:
            return await said(client, request, ends=False)

    answer = asyncio.run(talk())

    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_large_review_is_worked_at_beside_the_others(files: ServingFiles) -> None:
    """No small one waits until a large one is done, and no more than some large ones are in memory."""
    large = json.dumps(review(pod(volumes=[{"name": f"v{number}"} for number in range(20_000)]))).encode()
    assert len(large) > LARGE_REVIEW

    async def talk() -> list[tuple[int, Any]]:
        async with serving(files) as client:
            return await asyncio.gather(
                *(client.ask(large) for _ in range(MAX_LARGE + 2)), *(client.ask(WHOLE) for _ in range(20))
            )

    answers = asyncio.run(talk())

    assert [(status, answer["response"]["allowed"]) for status, answer in answers] == [(200, True)] * len(answers)
    assert all("patch" in answer["response"] for _, answer in answers)


def test_a_thousand_connections_at_once_are_all_answered(files: ServingFiles) -> None:
    count = 1000

    async def talk() -> tuple[list[tuple[int, Any]], str]:
        async with serving(files) as client:
            # Handshakes are taken some at a time, so that nobody's deadline depends on how fast this machine is.
            gate = asyncio.Semaphore(50)
            here = 0
            everybody = asyncio.Event()

            async def one() -> bytes:
                nonlocal here
                async with gate:
                    reader, writer = await client.connect()
                    writer.write(WHOLE_REQUEST.replace(b"Connection: close", b"Connection: keep-alive"))
                    answer = await reader.readuntil(b"\r\n\r\n")
                    here += 1
                    if here == count:
                        everybody.set()
                await everybody.wait()
                writer.write(WHOLE_REQUEST)
                answer = await reader.read()
                writer.close()
                return answer

            answers = asyncio.gather(*(one() for _ in range(count)))
            await everybody.wait()
            figures = await client.metrics()
            return [(200, answer) for answer in await answers], figures

    answers, figures = asyncio.run(talk())

    assert sum(b'"allowed":true' in answer for _, answer in answers) == count
    assert gauge(figures, "qbitel_injector_connections") >= count
    assert gauge(figures, 'qbitel_injections_total{result="injected"}') >= count


def gauge(figures: str, name: str) -> float:
    """The value of one series."""
    (line,) = [line for line in figures.splitlines() if line.startswith(f"{name} ")]
    return float(line.rpartition(" ")[2])


def test_what_was_answered_is_counted_by_its_result(files: ServingFiles) -> None:
    async def talk() -> str:
        async with serving(files) as client:
            for body in (
                WHOLE,
                WHOLE,
                json.dumps(review(pod(hostNetwork=True))).encode(),
                json.dumps(review(pod(securityContext={"runAsUser": 2102}))).encode(),
                b"{",
            ):
                await client.ask(body)
            await client.ask(WHOLE, **{"Content-Type": "text/plain"})
            return await client.metrics()

    figures = asyncio.run(talk())

    counts = {
        result: gauge(figures, f'qbitel_injections_total{{result="{result}"}}')
        for result in ("injected", "passed", "refused", "malformed", "failed")
    }
    assert counts == {"injected": 2, "passed": 1, "refused": 1, "malformed": 2, "failed": 0}
    assert gauge(figures, "qbitel_injection_seconds_count") == 5
    assert 0 < gauge(figures, "qbitel_cert_expiry_seconds") <= 86400


def test_strangers_fill_no_disk_with_complaints(files: ServingFiles, caplog: pytest.LogCaptureFixture) -> None:
    async def talk() -> None:
        async with serving(files) as client:
            for _ in range(30):
                await client.ask(b"{")

    with caplog.at_level(logging.INFO, logger="qbitel.injector"):
        asyncio.run(talk())

    # One line for the first, and one a second at most.
    began, ended = caplog.records[0].created, caplog.records[-1].created
    assert 1 <= caplog.text.count("the body is no JSON") <= 1 + math.ceil(ended - began)


def fuzzed(files: ServingFiles, requests: list[bytes]) -> list[bytes]:
    """The answers to requests of which many have no end: nobody waits for the rest of them for long."""

    async def talk() -> list[bytes]:
        async with serving(files) as client:
            answers = await asyncio.gather(*(said(client, request) for request in requests))
            # Whatever was sent, the next one is answered; or the one after it, where the machine stood still for so
            # long that the limits of this test, which are short, ended that one.
            monkeypatch.setattr(webhook, "BODY_SECONDS", 60.0)
            async with asyncio.timeout(60):
                while b'"allowed":true' not in await said(client, WHOLE_REQUEST):
                    pass
            return answers

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(webhook, "BODY_SECONDS", 0.1)
        short = dataclasses.replace(connections.LIMITS, head_seconds=0.3, idle_seconds=0.3)
        monkeypatch.setattr(connections, "LIMITS", short)
        return asyncio.run(talk())


def lets_a_bare_pod_through(answer: bytes) -> bool:
    return b'"allowed":true' in answer and b'"patch"' not in answer


def test_a_request_that_is_cut_anywhere_is_answered_or_ends_and_never_lets_a_pod_through(
    files: ServingFiles,
) -> None:
    cuts = [*range(0, len(WHOLE_REQUEST) - 1, 7)]

    for answer in fuzzed(files, [WHOLE_REQUEST[:cut] for cut in cuts]):
        assert answer == b"" or b'"kind":"Status"' in answer


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, len(WHOLE_REQUEST) - 1), st.integers(0, 255)), min_size=25, max_size=25),
)
def test_a_request_with_another_byte_never_lets_a_pod_through_unseen(
    files: ServingFiles, changes: list[tuple[int, int]]
) -> None:
    requests = [WHOLE_REQUEST[:at] + bytes([byte]) + WHOLE_REQUEST[at + 1 :] for at, byte in changes]
    answers = fuzzed(files, requests)

    for (at, _), answer in zip(changes, answers, strict=True):
        if lets_a_bare_pod_through(answer):
            # Another path, where the pod's own label decides, or another operation, namespace or pod that says no.
            assert at < WHOLE_REQUEST.index(b" HTTP/1.1") or at >= WHOLE_REQUEST.index(WHOLE)


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=200), min_size=10, max_size=10))
def test_any_bytes_at_all_leave_the_webhook_standing(files: ServingFiles, requests: list[bytes]) -> None:
    for answer in fuzzed(files, requests):
        assert not lets_a_bare_pod_through(answer)
