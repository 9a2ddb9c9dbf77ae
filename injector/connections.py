"""The webhook's connections: how many, how long, and errors in Kubernetes' form where no handler was asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from aiohttp import web

from httpd.connection import Limits, Terms
from httpd.connection_table import ConnectionTable
from injector import review
from injector.review import Answer

JSON: Final = "application/json"
# Open at once; when there are more, the one that was silent for the longest goes. An API server under load opens one
# for each pod that is being created. Each takes some 120 kB.
MAX_CONNECTIONS: Final = 1280
LIMITS: Final = Limits(
    # Go's transport keeps connections that it never used, too. More than the 90 after which API servers give an idle
    # connection up themselves (client-go), so that no request is ever on its way to a connection that we are just
    # closing.
    idle_seconds=150.0,
    # The API server gives up after five in all.
    head_seconds=10.0,
)


def terms_of(table: ConnectionTable, on_malformed: Callable[[Answer], None]) -> Terms:
    """What holds for all of them. `on_malformed` is told of what never reached a handler."""
    return Terms(LIMITS, _StatusErrors(on_malformed), lambda _transport: table)


class _StatusErrors:
    """Kubernetes' own form of an error."""

    def __init__(self, on_malformed: Callable[[Answer], None]) -> None:
        self._on_malformed = on_malformed

    def malformed(self, source: str) -> web.Response:
        """To what is no HTTP."""
        return self._response(review.refused_request(400, "this is no HTTP/1.1 request that can be read"))

    def failed(self) -> web.Response:
        """Where a bug failed a request behind its handler."""
        return self._response(review.refused_request(500, "the injector failed; its log says where"))

    def _response(self, answer: Answer) -> web.Response:
        self._on_malformed(answer)
        return web.Response(status=answer.status, body=answer.body, content_type=JSON)
