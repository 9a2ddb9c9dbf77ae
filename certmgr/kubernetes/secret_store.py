"""Secrets of the control namespace as the store: one Secret per document, changed under its resourceVersion.

    qbitel-authority, qbitel-peers-…    type Opaque, data key `document`

Whoever may read these Secrets can sign anything: RBAC must leave them to the authority alone.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from certmgr.store import MAX_DOCUMENT, StoreConflict, Stored, StoreUnavailable
from kube.backoff import Backoff
from kube.client import (
    GONE,
    METADATA_LIST,
    METADATA_ONLY,
    ApiRefused,
    ApiUnavailable,
    Cluster,
    resource,
)
from kube.objects import Object
from mesh.errors import UserError

PREFIX: Final = "qbitel-"
DATA_KEY: Final = "document"
LABELS: Final = {"app.kubernetes.io/managed-by": "qbitel", "qbitel.io/document": "true"}
# Which save it was that made this version: tells our own write from another's when its answer was lost.
SAVE_ANNOTATION: Final = "qbitel.io/save"
# RFC 1123 subdomain with PREFIX before it; see certmgr/store.py.
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*\Z")
_MAX_NAME: Final = 253 - len(PREFIX)
_FIRST_RETRY_SECONDS: Final = 0.25
# "Within a second or two", once the API server is back.
_LONGEST_RETRY_SECONDS: Final = 2.0

_log = logging.getLogger("qbitel.certmgr")


class SecretStore:
    """Documents as Secrets in `namespace`. A certmgr.store.Store."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster = cluster
        self._namespace = namespace

    async def load(self, name: str) -> Stored | None:
        """See Store.load."""
        secret = await self._get(name)
        if secret is None:
            return None
        try:
            document = base64.b64decode(secret["data"][DATA_KEY], validate=True)
        except (KeyError, TypeError, ValueError):
            raise UserError(
                f"the Secret {PREFIX}{name} in {self._namespace} holds no document of this store; restore it from a "
                "backup, or delete it"
            ) from None
        return Stored(document, secret["metadata"]["resourceVersion"])

    async def save(self, name: str, document: bytes, expected: str | None) -> str:
        """See Store.save. Where the API server's answer is lost and it cannot be asked again, the new one may stand."""
        if len(document) > MAX_DOCUMENT:
            raise UserError(f"the document {name!r} would have {len(document)} bytes; a store keeps {MAX_DOCUMENT}")
        save = secrets.token_hex(8)
        try:
            return await self._write(name, document, expected, save)
        except (StoreUnavailable, StoreConflict) as error:
            # The connection may have broken behind our write, or it was sent twice and lost against itself.
            with contextlib.suppress(StoreUnavailable):
                present = await self._get(name)
                if present is not None and _save_of(present) == save:
                    version: str = present["metadata"]["resourceVersion"]
                    return version
            raise error from None

    async def delete(self, name: str, expected: str) -> None:
        """See Store.delete."""
        with self._errors(name):
            try:
                await self._cluster.delete(self._path(name), {"resourceVersion": expected})
            except ApiRefused as error:
                if error.status != 404:
                    raise

    async def names(self) -> Sequence[str]:
        """See Store.names."""
        return sorted(await self.versions())

    async def versions(self) -> Mapping[str, str]:
        """See Store.versions."""
        selector = {"labelSelector": ",".join(f"{label}={value}" for label, value in LABELS.items())}
        with self._errors(""):
            found, _ = await self._cluster.list(self._path(), selector, accept=METADATA_LIST)
        versions = {each["metadata"]["name"]: each["metadata"]["resourceVersion"] for each in found}
        return {name.removeprefix(PREFIX): version for name, version in versions.items() if name.startswith(PREFIX)}

    async def changed(self, name: str, version: str | None) -> None:
        """See Store.changed. While the API server cannot be asked, it goes on trying."""
        selector = {"fieldSelector": f"metadata.name={_secret_name(name)}"}
        backoff = Backoff(_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS)
        while True:
            try:
                found, since = await self._cluster.list(self._path(), selector, accept=METADATA_LIST)
                if (found[0]["metadata"]["resourceVersion"] if found else None) != version:
                    return
                watch = self._cluster.watch(self._path(), since, selector, accept=METADATA_ONLY)
                async with contextlib.aclosing(watch) as events:
                    async for kind, _ in events:
                        if kind != "BOOKMARK":
                            return
            except (ApiUnavailable, ApiRefused) as error:
                # GONE, where so much happened elsewhere that our version is forgotten, is no failure: list again.
                is_gone = isinstance(error, ApiRefused) and error.status == GONE
                if not backoff.failures and not is_gone:
                    _log.warning("changes of %s cannot be watched: %s", _secret_name(name), error)
                await asyncio.sleep(backoff.failed())
            else:
                backoff.succeeded()

    async def _get(self, name: str) -> Object | None:
        with self._errors(name):
            try:
                return await self._cluster.get(self._path(name))
            except ApiRefused as error:
                if error.status != 404:
                    raise
                return None

    async def _write(self, name: str, document: bytes, expected: str | None, save: str) -> str:
        metadata = {
            "name": _secret_name(name),
            "namespace": self._namespace,
            "labels": LABELS,
            "annotations": {SAVE_ANNOTATION: save},
        }
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": metadata,
            "type": "Opaque",
            "data": {DATA_KEY: base64.b64encode(document).decode("ascii")},
        }
        with self._errors(name):
            if expected is None:
                written = await self._create(body)
            else:
                metadata["resourceVersion"] = expected
                written = await self._cluster.replace(self._path(name), body)
        version: str = written["metadata"]["resourceVersion"]
        return version

    async def _create(self, body: Object) -> Object:
        try:
            return await self._cluster.create(self._path(), body)
        except ApiRefused as error:
            if error.status != 404:
                raise
            raise UserError(
                f"there is no namespace {self._namespace!r} in the cluster; make it with "
                f"`kubectl create namespace {self._namespace}`"
            ) from None

    def _path(self, name: str | None = None) -> str:
        return resource("secrets", namespace=self._namespace, name="" if name is None else _secret_name(name))

    @contextlib.contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        """Say what the API server says in a store's words."""
        try:
            yield
        except ApiUnavailable as error:
            raise StoreUnavailable(str(error)) from None
        except ApiRefused as error:
            if error.status in (404, 409):  # 404: it was deleted meanwhile
                raise StoreConflict(name) from None
            if error.status == GONE:  # a list of so many pages that the server forgot the first meanwhile
                raise StoreUnavailable(str(error)) from None
            if error.status in (401, 403):
                # Also while an API server starts and has not read its roles yet: it may mend itself.
                raise StoreUnavailable(f"no access to the Secrets of {self._namespace}: {error}") from None
            raise UserError(f"the API server refuses the Secret {PREFIX}{name}: {error}") from None


def _secret_name(name: str) -> str:
    if len(name) > _MAX_NAME or not _NAME.match(name):
        raise ValueError(f"{name!r} is no name of a document")
    return PREFIX + name


def _save_of(secret: Object) -> str | None:
    return (secret["metadata"].get("annotations") or {}).get(SAVE_ANNOTATION)
