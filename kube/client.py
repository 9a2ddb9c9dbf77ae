"""Requests to a cluster's API server: JSON in, JSON out. The one place that knows the library (ADR 14).

Of kubernetes_asyncio it takes what is worth a library: kubeconfig files, a pod's service account with its token that
is replaced under way, TLS and the connection pool. Answers are read here, because the library's own reading logs their
bodies, and with them Secrets, at level DEBUG; its Watch and its election do not do what we need.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import email.utils
import json
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import quote

import aiohttp
from kubernetes_asyncio.client import ApiClient
from kubernetes_asyncio.client.configuration import Configuration
from kubernetes_asyncio.config import ConfigException, load_incluster_config, load_kube_config, refresh_token

from kube.objects import Object
from mesh.errors import UserError, shown

Query = Mapping[str, str]
EVERYTHING: Final[Query] = MappingProxyType({})
_DRY_RUN: Final[Query] = MappingProxyType({"dryRun": "All"})

JSON: Final = "application/json"
MERGE_PATCH: Final = "application/merge-patch+json"  # RFC 7386
TEXT: Final = "text/plain"
# Everything of an object but what it holds: enough to know that a Secret has changed.
METADATA_ONLY: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
GONE: Final = 410

# An API server that is well answers within a tenth; one that does not in this time will not be waited for.
REQUEST_SECONDS: Final = 5.0
# The server ends a watch after so long, and it is taken up again. An end that never comes, because the machine is
# gone, shows when that time and some more has passed in silence.
_WATCH_SECONDS: Final = 45
_WATCH_SILENCE_SECONDS: Final = 60.0
# An object has 1 MiB at most, and whoever may write Secrets in one namespace may fill some thousands of them: a page,
# of which one is in memory at a time, must stay small then, too. 10,000 objects are a hundred requests.
_PAGE: Final = 100
# In a kubeconfig, tokens of a program ("exec") end; this is how often the library looks.
_REFRESH_SECONDS: Final = 60

_log = logging.getLogger("qbitel.kube")


class ApiUnavailable(Exception):
    """The API server cannot be reached, is overloaded or failed: the same request may succeed later.

    Whether it was carried out is not known.
    """

    def __init__(self, message: str, *, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after  # seconds; 0 where it did not say


class ApiRefused(Exception):
    """The API server refuses a request: `status` is HTTP's, `reason` Kubernetes' word for it."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


def resource(plural: str, *, namespace: str = "", name: str = "", api: str = "api/v1") -> str:
    """The path of a kind of objects, in one namespace or all, or of one object."""
    within = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
    last = f"/{quote(name, safe='')}" if name else ""
    return f"/{api}{within}/{plural}{last}"


class Cluster:
    """One API server, as one user. Requests may run at the same time."""

    def __init__(self, api: ApiClient) -> None:
        self._api = api

    async def get(self, path: str, *, seconds: float = REQUEST_SECONDS) -> Object:
        """Return an object. Raises ApiUnavailable, ApiRefused (404: there is none)."""
        return await self._request("GET", path, seconds=seconds)

    async def text(self, path: str, *, most: int, seconds: float = REQUEST_SECONDS) -> tuple[int, str]:
        """Return the status and the text of what is no object, such as a pod's answer through the server's proxy.

        Whatever the status is: the pod's own word and the server's about it look alike. Raises ApiUnavailable, where
        the text has more than `most` bytes, too.
        """
        async with self._send("GET", path, query=EVERYTHING, accept=TEXT, timeout=seconds) as response:
            return response.status, (await _at_most(most, response)).decode(errors="replace")

    async def date(self) -> datetime.datetime:
        """Return the server's clock, to the second (RFC 9110 §6.6.1). Raises ApiUnavailable where it does not say."""
        async with self._send("GET", "/version", query=EVERYTHING, accept=JSON, timeout=REQUEST_SECONDS) as response:
            try:
                return email.utils.parsedate_to_datetime(response.headers["Date"]).astimezone(datetime.UTC)
            except (KeyError, ValueError, OverflowError):
                raise ApiUnavailable("the API server's answers say no date") from None

    async def create(
        self, path: str, body: Object, *, dry_run: bool = False, seconds: float = REQUEST_SECONDS
    ) -> Object:
        """Return the object as it was made. Raises ApiUnavailable, ApiRefused (409: the name is taken).

        With `dry_run` it is judged as ever (rights, quotas, admission) and not made.
        """
        return await self._request("POST", path, query=_DRY_RUN if dry_run else EVERYTHING, body=body, seconds=seconds)

    async def replace(self, path: str, body: Object, *, seconds: float = REQUEST_SECONDS) -> Object:
        """Return the new object; 409 where `body` names a resourceVersion that is not the present one."""
        return await self._request("PUT", path, body=body, seconds=seconds)

    async def patch(self, path: str, body: Object, *, dry_run: bool = False) -> Object:
        """Merge `body` into the object (RFC 7386) and return that; 409 as for `replace`, `dry_run` as for `create`."""
        query = _DRY_RUN if dry_run else EVERYTHING
        return await self._request("PATCH", path, query=query, body=body, content=MERGE_PATCH)

    async def delete(self, path: str, preconditions: Object) -> None:
        """Delete the object that has this uid or resourceVersion; 409 where it has another."""
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": dict(preconditions)}
        await self._request("DELETE", path, body=body)

    async def list(self, path: str, query: Query = EVERYTHING, *, accept: str = JSON) -> tuple[list[Object], str]:
        """Return all objects, and the resourceVersion that a watch goes on from. Raises as `pages`."""
        items: list[Object] = []
        version = ""
        async for page, since in self.pages(path, query, accept=accept):
            items += page
            version = since
        return items, version

    async def pages(
        self, path: str, query: Query = EVERYTHING, *, accept: str = JSON
    ) -> AsyncGenerator[tuple[Sequence[Object], str]]:
        """Yield all objects, some at a time, with the resourceVersion that a watch goes on from.

        Raises ApiUnavailable, and ApiRefused of status GONE where the server has forgotten when the first page was.
        """
        wanted = dict(query, limit=str(_PAGE))
        while True:
            page = await self._request("GET", path, query=wanted, accept=accept)
            metadata = page.get("metadata") or {}
            yield page.get("items") or [], metadata.get("resourceVersion", "")
            if not metadata.get("continue"):
                return
            wanted["continue"] = metadata["continue"]

    async def watch(
        self, path: str, version: str, query: Query = EVERYTHING, *, accept: str = JSON
    ) -> AsyncGenerator[tuple[str, Object]]:
        """Yield (ADDED, MODIFIED, DELETED or BOOKMARK; object) for all that happened after `version`.

        Ends when the server ends it, which it does every minute or so: go on from the last object's resourceVersion.
        Raises ApiUnavailable where the connection breaks and ApiRefused of status GONE where `version` is too old.
        """
        wanted = dict(
            query,
            watch="true",
            allowWatchBookmarks="true",
            resourceVersion=version,
            timeoutSeconds=str(_WATCH_SECONDS),
        )
        async with self._send(
            "GET", path, query=wanted, accept=accept, timeout=(REQUEST_SECONDS, _WATCH_SILENCE_SECONDS)
        ) as response:
            if response.status != 200:
                raise _refusal(response, await response.read())
            async for line in response.content:
                event = _object(line)
                if event["type"] == "ERROR":
                    raise _status_error(event["object"])
                yield event["type"], event["object"]

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Query = EVERYTHING,
        body: Object | None = None,
        content: str = JSON,
        accept: str = JSON,
        seconds: float = REQUEST_SECONDS,
    ) -> Object:
        async with self._send(
            method, path, query=query, body=body, content=content, accept=accept, timeout=seconds
        ) as response:
            answer = await response.read()
            if not 200 <= response.status < 300:
                raise _refusal(response, answer)
            return _object(answer)

    @contextlib.asynccontextmanager
    async def _send(
        self,
        method: str,
        path: str,
        *,
        query: Query,
        accept: str,
        timeout: float | tuple[float, float],  # a socket's, for the library
        body: Object | None = None,
        content: str = JSON,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request; the answer's status is not judged here. Whatever goes wrong on the way is ApiUnavailable."""
        try:
            response: aiohttp.ClientResponse = await self._api.call_api(
                path,
                method,
                query_params=list(query.items()),
                header_params={"Accept": accept, "Content-Type": content},
                body=body,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _request_timeout=timeout,  # type: ignore[arg-type]  # its stub forgets the pair
            )
            try:
                yield response
            finally:
                response.close()  # where all was read, the connection is back in the pool already
        except (aiohttp.ClientError, TimeoutError, OSError, ConfigException) as error:
            raise ApiUnavailable(f"the API server cannot be reached: {_told(error)}") from None
        except (ValueError, KeyError) as error:
            # ValueError: no JSON, or a line longer than an object may be.
            raise ApiUnavailable(f"what answers in the API server's place is none: {type(error).__name__}") from None


@contextlib.asynccontextmanager
async def connect(
    kubeconfig: str | None, agent: str = "qbitel", *, context: str | None = None
) -> AsyncIterator[Cluster]:
    """Yield the cluster that `kubeconfig` names (paths with ':' between them); None: the one that this pod is in.

    `agent` is who asks, in the API server's log; `context` one of the kubeconfig's (its current one). No request
    is made yet. Raises UserError for a configuration that cannot be used.
    """
    configuration = Configuration()
    # Python 3.13 began to refuse authorities without the key usage extension (RFC 5280 §4.2.1.3), which many clusters
    # have had for years and kubectl takes. Chain, name and time are checked all the same.
    configuration.disable_strict_ssl_verification = True
    async with contextlib.AsyncExitStack() as undo:
        if kubeconfig is None:
            _use_service_account(configuration)
        else:
            loader = await _use_kubeconfig(configuration, kubeconfig, context)
            refreshing = asyncio.create_task(_keep_fresh(loader, configuration))
            undo.push_async_callback(_cancelled, refreshing)
        try:
            api = ApiClient(configuration)
        except OSError as error:  # ssl.SSLError among them: certificates that cannot be read
            raise UserError(f"the certificates for the API server cannot be used: {_told(error)}") from None
        api.user_agent = agent
        undo.push_async_callback(api.close)
        yield Cluster(api)


def _use_service_account(configuration: Configuration) -> None:
    try:
        load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except (ConfigException, OSError) as error:
        raise UserError(
            f"this is no pod with a service account ({_told(error)}); name a cluster by --kubeconfig"
        ) from None


async def _use_kubeconfig(configuration: Configuration, kubeconfig: str, context: str | None) -> Any:
    paths = [path for path in kubeconfig.split(os.pathsep) if path]
    if not any(os.path.exists(os.path.expanduser(path)) for path in paths):  # noqa: PTH110, PTH111  # as the library does
        raise UserError(f"{shown(kubeconfig)} does not exist; give a kubeconfig file")
    try:
        return await load_kube_config(
            config_file=kubeconfig, context=context, client_configuration=configuration, persist_config=False
        )
    except Exception as error:  # noqa: BLE001  # a file that is broken makes the library raise whatever comes
        # Its messages quote the file, tokens included: only the kind is told.
        raise UserError(
            f"{shown(kubeconfig)} cannot be used as a kubeconfig{_with(context)} ({type(error).__name__}); "
            f"try it with `kubectl --kubeconfig {shown(kubeconfig)} version`"
        ) from None


def _with(context: str | None) -> str:
    return "" if context is None else f" with the context {shown(context)}"


async def _keep_fresh(loader: Any, configuration: Configuration) -> None:
    """Run the kubeconfig's program again when its token ends; the library returns at once where there is none."""
    while True:
        try:
            return await refresh_token(loader, configuration, _REFRESH_SECONDS)
        except Exception as error:  # noqa: BLE001  # as in _use_kubeconfig
            _log.warning("the kubeconfig's credentials cannot be renewed: %s", type(error).__name__)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _at_most(most: int, response: aiohttp.ClientResponse) -> bytes:
    answer = bytearray()
    async for part in response.content.iter_any():
        answer += part
        if len(answer) > most:
            raise ApiUnavailable(f"the answer is longer than {most} bytes")
    return bytes(answer)


def _object(answer: bytes) -> Object:
    """The JSON object in `answer`. ValueError where it is none."""
    found = json.loads(answer)
    if not isinstance(found, dict):
        raise ValueError("no object")  # noqa: TRY004  # as json.loads says it of everything else
    return found


def _refusal(response: aiohttp.ClientResponse, answer: bytes) -> ApiUnavailable | ApiRefused:
    """The error of an answer that is not 2xx. Its body is a Status object, but for proxies on the way."""
    try:
        status = json.loads(answer)
    except ValueError:
        status = None
    if not isinstance(status, dict):
        status = {}
    return _status_error(
        {**status, "code": response.status}, retry_after=_seconds(response.headers.get("Retry-After", ""))
    )


def _status_error(status: Object, *, retry_after: float = 0.0) -> ApiUnavailable | ApiRefused:
    code = int(status.get("code") or 500)
    reason = str(status.get("reason") or "")
    message = str(status.get("message") or f"HTTP status {code}")[:500]
    if code == 429 or code >= 500:
        return ApiUnavailable(f"the API server answers {code}: {message}", retry_after=retry_after)
    return ApiRefused(code, reason, message)


def _seconds(header: str) -> float:
    return min(float(header), 3600.0) if header.isascii() and header.isdigit() else 0.0


def _told(error: BaseException) -> str:
    """An error in one line; a timeout has no words of its own."""
    return " ".join(str(error).split())[:300] or type(error).__name__
