"""The health port's answers to rewritten probes and hooks: the application is asked at the pod's own address.

Everybody who reaches the port may ask. So: configured paths alone, at the address of the pod that was dialled, and at
most one question of a path under way; whoever asks the same meanwhile gets the same answer.
"""

from __future__ import annotations

import asyncio
import functools
import os
import re
import ssl
from collections.abc import Mapping
from typing import Final

from proxy.admin.http_request import Request
from proxy.admin.http_server import Answer, HangUp, text
from proxy.config import Endpoint
from proxy.printable import printable
from proxy.probes.dialling import dialled
from proxy.probes.outcome import NoAnswer, Outcome
from proxy.probes.questions import HOOKS, GrpcCheck, HttpGet, Question, TcpConnect

# What the kubelet calls itself, which applications know by it: access logs leave its questions out.
_KUBELET: Final = re.compile(r"kube-(?:probe|lifecycle)/[0-9A-Za-z.+-]{0,40}\Z")
_NOT_THE_KUBELET: Final = "qbitel-probe"
_READ_SIZE: Final = 4096  # bytes; an answer of gRPC has 200


class ProbeAnswers:
    """Asks the `questions`, by their path."""

    def __init__(self, questions: Mapping[str, Question]) -> None:
        self._questions = questions
        self._under_way: dict[tuple[str, str], asyncio.Task[Outcome]] = {}

    def knows(self, path: str) -> bool:
        """Whether there is such a probe or hook."""
        return path in self._questions

    async def answer(self, request: Request) -> Answer:
        """The application's answer to a path that is known. Raises HangUp where a hook gets none."""
        try:
            # Whoever asked may be gone before the answer is there; others may wait for it, too.
            outcome = await asyncio.shield(self._asked(request))
        except NoAnswer as failure:
            if request.path.startswith(HOOKS):
                # The kubelet takes every answer to a hook for success, whatever its status: there must be none.
                raise HangUp from failure
            return text(f"no answer of the application: {failure}", 503)
        headers = {"Location": outcome.location} if outcome.location else {}
        return Answer(f"{outcome.word}\n".encode(), outcome.status, headers=headers)

    async def close(self) -> None:
        """Give up what is under way."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _asked(self, request: Request) -> asyncio.Task[Outcome]:
        key = request.path, request.local
        task = self._under_way.get(key)
        if task is None:
            agent = request.headers.get("user-agent", "")
            asking = self._ask(*key, agent if _KUBELET.match(agent) else _NOT_THE_KUBELET)
            task = self._under_way[key] = asyncio.get_running_loop().create_task(asking)
            task.add_done_callback(functools.partial(self._ended, key))
        return task

    def _ended(self, key: tuple[str, str], task: asyncio.Task[Outcome]) -> None:
        del self._under_way[key]
        if not task.cancelled():
            task.exception()  # nobody may be left to hear of it

    async def _ask(self, path: str, host: str, user_agent: str) -> Outcome:
        question = self._questions[path]
        try:
            async with asyncio.timeout(question.timeout):
                match question.what:
                    case HttpGet() as get:
                        from proxy.probes.http_get import ask_http  # noqa: PLC0415  # other pods have no such probe

                        return await ask_http(get, host, question.port, user_agent)
                    case TcpConnect():
                        async with dialled(host, question.port):
                            return Outcome(200, "the application takes connections")
                    case GrpcCheck(service):
                        return await _check(host, question, service, user_agent)
        except TimeoutError:
            raise NoAnswer(f"none within {question.timeout} s") from None
        except OSError as error:
            raise NoAnswer(_reason(error)) from error


async def _check(host: str, question: Question, service: str, user_agent: str) -> Outcome:
    from proxy.probes.grpc_health import HealthCheck  # noqa: PLC0415  # few pods have such a probe

    loop = asyncio.get_running_loop()
    check = HealthCheck(str(Endpoint(host, question.port)), service, question.timeout, user_agent)
    async with dialled(host, question.port) as sock:
        while not check.is_done:
            to_send, check.to_send = check.to_send, b""
            if to_send:
                await loop.sock_sendall(sock, to_send)
            data = await loop.sock_recv(sock, _READ_SIZE)
            if not data:
                raise NoAnswer("it closed the connection before its answer was whole")
            check.receive(data)
    return Outcome(200 if check.is_serving else 503, f"the application answers {check.word}")


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"its TLS is not usable: {printable(str(error), 200)}"
    return os.strerror(error.errno) if error.errno else printable(str(error), 200)
