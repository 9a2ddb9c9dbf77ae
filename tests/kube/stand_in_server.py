"""As much of an API server as the authority asks for, over real HTTP, with faults at the push of a button.

The tests that use it run against a real API server too, where there is one (conftest.py): it is no better than that.
What it is for is what cannot be had of a real one at will: an answer that is lost, a history that is forgotten.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import itertools
import json
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

from aiohttp import web

Objects = dict[tuple[str, str, str], dict[str, Any]]


class StandInServer:
    """Keeps objects by (plural, namespace, name). `review` answers TokenReviews: token -> status."""

    def __init__(self) -> None:
        self.objects: Objects = {}
        self.history: list[tuple[int, str, str, dict[str, Any]]] = []
        self.forgotten = 0
        self.requests: list[str] = []
        self.review: Callable[[str], dict[str, Any]] = lambda _token: {"authenticated": False}
        # Each is used up by one request: a status, or "lose the answer" after it was carried out.
        self.faults: list[int | str] = []
        self.hold: asyncio.Event | None = None
        self.page_limit = 1000
        self.port = 0
        self._versions = itertools.count(100)
        self._version = 99
        self._news = asyncio.Event()
        self._runner: web.AppRunner | None = None

    # -- what a test does ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        application = web.Application(client_max_size=1 << 23)
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Nobody listens any more, and every connection breaks."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    def forget(self) -> None:
        """Compact the history: watches from before are told 410, also those that come back."""
        self.forgotten = self._version
        self.history.clear()

    def put(self, plural: str, namespace: str, name: str, **rest: Any) -> dict[str, Any]:
        metadata = {"name": name, "namespace": namespace, **rest.pop("metadata", {})}
        if not namespace:
            del metadata["namespace"]
        return self._store(plural, {"metadata": metadata, **rest})

    def remove(self, plural: str, namespace: str, name: str) -> None:
        found = copy.deepcopy(self.objects.pop((plural, namespace, name)))
        found["metadata"]["resourceVersion"] = str(self._next_version())
        self._record("DELETED", plural, found)

    # -- what it answers ----------------------------------------------------------------------------------------

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path_qs}")
        if self.hold is not None:
            await self.hold.wait()
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, int):
            return _status(fault, "Fault", "as the test wants it", headers={"Retry-After": "7"})
        # /api/v1/… or /apis/<group>/<version>/…; then namespaces/<namespace>/ for what is in one.
        parts = request.path.strip("/").split("/")
        parts = parts[2:] if parts[0] == "api" else parts[3:]
        namespace = ""
        if parts[0] == "namespaces" and len(parts) > 2:
            namespace, parts = parts[1], parts[2:]
        plural, name = parts[0], parts[1] if len(parts) > 1 else ""
        if request.method == "GET" and not name:
            if request.query.get("watch"):
                return await self._watch(request, plural, namespace)
            return self._list(request, plural, namespace)
        body = json.loads(await request.read() or b"{}")
        answer = self._answer(request.method, plural, namespace, name, body, dry_run="dryRun" in request.query)
        if fault is not None:
            assert request.transport is not None
            request.transport.abort()
        return answer

    def _answer(
        self, method: str, plural: str, namespace: str, name: str, body: dict[str, Any], *, dry_run: bool
    ) -> web.Response:
        if plural == "tokenreviews":
            return web.json_response({**body, "status": self.review(body["spec"]["token"])}, status=201)
        key = (plural, namespace, name or body.get("metadata", {}).get("name", ""))
        found = self.objects.get(key)
        if method == "POST":
            if found is not None:
                return _status(409, "AlreadyExists", f"{plural} {key[2]!r} already exists")
            return web.json_response(body if dry_run else self._store(plural, body), status=201)
        if found is None:
            return _status(404, "NotFound", f"{plural} {name!r} not found")
        metadata = found["metadata"]
        if method == "GET":
            return web.json_response(found)
        wanted = body.get("preconditions" if method == "DELETE" else "metadata", {})
        for field in ("resourceVersion", "uid"):
            if wanted.get(field, metadata[field]) != metadata[field]:
                return _status(409, "Conflict", "the object has been modified")
        if method == "DELETE":
            self.remove(*key)
            return web.json_response({"kind": "Status", "status": "Success"})
        if method == "PATCH":
            if found.get("immutable") and "data" in body:
                return _status(422, "Invalid", "data: Forbidden: field is immutable when `immutable` is set")
            body = _merged(found, body)
        if dry_run:
            return web.json_response(body)
        return web.json_response(
            self._store(plural, {**body, "metadata": {**body["metadata"], "uid": metadata["uid"]}})
        )

    def _store(self, plural: str, body: dict[str, Any]) -> dict[str, Any]:
        stored = copy.deepcopy(body)
        metadata = stored["metadata"]
        key = (plural, metadata.get("namespace", ""), metadata["name"])
        kind = "MODIFIED" if key in self.objects else "ADDED"
        metadata.setdefault("uid", str(uuid.uuid4()))
        metadata["resourceVersion"] = str(self._next_version())
        self.objects[key] = stored
        self._record(kind, plural, copy.deepcopy(stored))
        return stored

    def _list(self, request: web.Request, plural: str, namespace: str) -> web.Response:
        found = [
            found
            for (kind, _, _), found in sorted(self.objects.items())
            if kind == plural and _selected(request, found)
        ]
        found = [each for each in found if namespace in ("", each["metadata"].get("namespace"))]
        start = int(request.query.get("continue", 0))
        end = start + min(int(request.query.get("limit", 1000)), self.page_limit)
        metadata = {"resourceVersion": str(self._version)}
        if end < len(found):
            metadata["continue"] = str(end)
        items = [_shown(request, each) for each in found[start:end]]
        return web.json_response({"kind": "List", "metadata": metadata, "items": items})

    async def _watch(self, request: web.Request, plural: str, namespace: str) -> web.StreamResponse:
        seen = int(request.query["resourceVersion"])
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                news = self._news
                if seen < self.forgotten:
                    gone = {"code": 410, "reason": "Expired", "message": "too old resource version"}
                    await response.write(_line("ERROR", gone))
                    return response
                for version, kind, of, found in list(self.history):
                    if version <= seen:
                        continue
                    seen = version
                    matches = of == plural and namespace in ("", found["metadata"].get("namespace"))
                    if matches and _selected(request, found):
                        await response.write(_line(kind, _shown(request, found)))
                await news.wait()
        return response

    def _next_version(self) -> int:
        self._version = next(self._versions)
        return self._version

    def _record(self, kind: str, plural: str, found: dict[str, Any]) -> None:
        self.history.append((self._version, kind, plural, found))
        self.wake_watches()

    def wake_watches(self) -> None:
        """Let watches look again."""
        self._news.set()
        self._news = asyncio.Event()


@contextlib.asynccontextmanager
async def stand_in_server() -> AsyncIterator[StandInServer]:
    server = StandInServer()
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def _selected(request: web.Request, found: dict[str, Any]) -> bool:
    labels = found["metadata"].get("labels") or {}
    wanted = dict(pair.split("=") for pair in request.query.get("labelSelector", "").split(",") if pair)
    if any(labels.get(label) != value for label, value in wanted.items()):
        return False
    field = request.query.get("fieldSelector")
    return field is None or field == f"metadata.name={found['metadata']['name']}"


def _shown(request: web.Request, found: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": found["metadata"]} if "PartialObjectMetadata" in request.headers["Accept"] else found


def _line(kind: str, found: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": found}).encode() + b"\n"


def _status(code: int, reason: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    body = {"kind": "Status", "code": code, "reason": reason, "message": message}
    return web.json_response(body, status=code, headers=headers)


def _merged(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value)
    return merged
