"""Certificates in Secrets, for workloads without a sidecar that renews its own ("Secrets mode").

A service account asks for one by annotation (service_accounts.py). The leader makes it, rotates it inside the
threshold, when another generation signs and when it was revoked, and lets no Secret be touched that it did not make.
A Secret goes with its service account, by the garbage collector.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import hashlib
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA87PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM1024PrivateKey

from certmgr.authority import WorkloadRequest
from certmgr.kubernetes.held_secrets import LABELS, Held, Task, annotations_for, due_by_time, held_of, task_for
from certmgr.kubernetes.service_accounts import SECRET_ANNOTATION, Wish, wish_of
from certmgr.parts import Authority
from certmgr.proofs import Refused
from certmgr.secrets import tls_secret
from certmgr.store import StoreUnavailable
from kube.client import ApiRefused, Cluster, resource
from kube.mirror import Mirror
from kube.objects import Key, Object
from kube.reconciler import Reconciler, Step
from mesh.errors import UserError
from mesh.names import (
    CERTIFICATE_FILE,
    KEM_CERTIFICATE_FILE,
    KEM_PRIVATE_KEY_FILE,
    PRIVATE_KEY_FILE,
    ROOTS_FILE,
)

# With 30 days before its end as the threshold, two months of an authority that is away are survived.
SECRET_VALIDITY: Final = datetime.timedelta(days=90)
_FILES: Final = (CERTIFICATE_FILE, PRIVATE_KEY_FILE, ROOTS_FILE, KEM_CERTIFICATE_FILE, KEM_PRIVATE_KEY_FILE)
# An instance's name has 128 characters at most (certmgr/peers.py); a namespace takes up to 63 of them.
_LONGEST_SHOWN_NAME: Final = 56

# A wish, the version of its Secret, the bundle's etag, and what was acknowledged.
_Facts = tuple[Wish, str, str, str]

_log = logging.getLogger("qbitel.certmgr")


class ServiceSecrets:
    """`run` is a chore: it keeps the Secrets of annotated service accounts, while `is_leader`."""

    def __init__(
        self,
        cluster: Cluster,
        is_leader: Callable[[], bool],
        *,
        now: Callable[[], datetime.datetime],
        cluster_domain: str = "cluster.local",
        validity: datetime.timedelta = SECRET_VALIDITY,
    ) -> None:
        self._cluster = cluster
        self._now = now
        self._validity = validity
        self._reconciler = Reconciler(self._plan, is_leader, failures=(StoreUnavailable, Refused))
        self._wishes: Mirror[Wish | str] = Mirror(
            cluster,
            resource("serviceaccounts"),
            lambda account: _wish_or_fault(account, cluster_domain),
            self._reconciler.poke,
        )
        self._held = Mirror(
            cluster,
            resource("secrets"),
            held_of,
            self._reconciler.poke,
            {"labelSelector": ",".join(f"{label}={value}" for label, value in LABELS.items())},
        )
        self._authority: Authority | None = None
        # By Secret: the serial number of its certificate and what was acknowledged for it, in this process.
        self._acknowledged: dict[Key, tuple[int, str]] = {}
        # By Secret: what was decided upon when there was nothing to do, and from when until when that holds.
        self._settled: dict[Key, tuple[_Facts, datetime.datetime, datetime.datetime]] = {}
        self._faults: frozenset[str] = frozenset()

    async def run(self, authority: Authority) -> None:
        """Until cancelled; whatever the API server does is survived."""
        self._authority = authority
        async with asyncio.TaskGroup() as group:
            for part in (self._wishes.run(), self._held.run(), self._reconciler.run(), self._follow(authority)):
                group.create_task(part)

    async def _follow(self, authority: Authority) -> None:
        etag = authority.bundle().etag
        while True:
            etag = (await authority.next_bundle(etag)).etag
            self._reconciler.poke()

    async def _plan(self) -> Sequence[Step]:
        if self._authority is None or not (self._wishes.ready and self._held.ready):
            return ()
        steps = []
        wanted = self._by_secret()
        self._acknowledged = {key: value for key, value in self._acknowledged.items() if key in wanted}
        self._settled = {key: value for key, value in self._settled.items() if key in wanted}
        for key, wish in wanted.items():
            await asyncio.sleep(0)  # there may be thousands, and requests to answer meanwhile
            step = self._step(self._authority, key, wish)
            if step is not None:
                steps.append(step)
        return steps

    def _by_secret(self) -> dict[Key, Wish]:
        """One service account per Secret: whoever has it keeps it, else the first by name."""
        wanted: dict[Key, Wish] = {}
        faults = set()
        for account, wish in sorted(self._wishes.items.items()):
            if isinstance(wish, str):
                faults.add(f"service account {'/'.join(account)}: {wish}")
                continue
            key = (wish.namespace, wish.secret)
            held = self._held.items.get(key)
            if key in wanted:
                faults.add(f"{'/'.join(key)}: more than one service account wants this Secret by {SECRET_ANNOTATION}")
            if key not in wanted or (held is not None and held.service_account == wish.service_account):
                wanted[key] = wish
        # Told here, not as each event comes: nobody can fill the log faster than decisions are made.
        for fault in sorted(faults - self._faults):
            _log.warning("%s", fault)
        self._faults = frozenset(faults)
        return wanted

    def _step(self, authority: Authority, key: Key, wish: Wish) -> Step | None:
        # Not what is wished for: whoever wishes for something else all the time must not get it all the time.
        about, goal = "/".join(key), authority.bundle().etag
        held = self._held.items.get(key)
        if held is None:
            return Step(about, "make the Secret", partial(self._renew, authority, wish, None), goal)
        task = self._task(authority, key, wish, held)
        match task:
            case None:
                return None
            case Task.RENEW:
                act = partial(self._renew, authority, wish, held)
            case Task.PUBLISH:
                act = partial(self._publish, authority, wish, held)
            case Task.ACKNOWLEDGE:
                act = partial(self._acknowledge, authority, wish, held)
        return Step(about, task.value, act, goal)

    def _task(self, authority: Authority, key: Key, wish: Wish, held: Held) -> Task | None:
        """What is due. Whatever is revoked is in the bundle's lists, and so in its etag."""
        bundle, now, acknowledged = authority.bundle(), self._now(), self._acknowledged_for(key, held)
        facts: _Facts = (wish, held.version, bundle.etag, acknowledged)
        before, since, until = self._settled.get(key, (None, now, now))
        if before == facts and since <= now < until:
            return None
        self._settled.pop(key, None)
        task = task_for(
            wish,
            held,
            bundle,
            now,
            trust_domain=authority.trust_domain,
            is_revoked=authority.is_revoked,
            acknowledged=acknowledged,
        )
        if task is None:
            self._settled[key] = facts, now, due_by_time(held, acknowledged)
        return task

    def _acknowledged_for(self, key: Key, held: Held) -> str:
        serial, anchors = self._acknowledged.get(key, (0, ""))
        return anchors if held.identity is not None and held.identity.serial_number == serial else ""

    async def _renew(self, authority: Authority, wish: Wish, held: Held | None) -> None:
        await self._rehearse(authority, wish, held)
        request = WorkloadRequest(
            spiffe_id=wish.spiffe_id(authority.trust_domain), dns_names=wish.dns_names, validity=self._validity
        )
        instance = instance_of((wish.namespace, wish.secret))
        # Before the certificates, so that they are never of a later generation than these roots know.
        bundle = authority.bundle()
        kem_key = MLKEM1024PrivateKey.generate()
        encryption = await authority.certify(request, kem_key.public_key(), instance)
        key = MLDSA87PrivateKey.generate()
        identity = await authority.certify(request, key.public_key(), instance)
        files = {
            CERTIFICATE_FILE: b"".join(map(_pem, (identity.certificate, *identity.intermediates))),
            PRIVATE_KEY_FILE: _private_pem(key),
            ROOTS_FILE: bundle.files[ROOTS_FILE],
            KEM_CERTIFICATE_FILE: _pem(encryption.certificate),
            KEM_PRIVATE_KEY_FILE: _private_pem(kem_key),
        }
        # Where a rotation came in between, the pair is made again as soon as that is seen.
        generation = identity.generation if identity.generation == encryption.generation else ""
        annotations = annotations_for(wish, held, bundle, generation, self._now())
        await self._write(wish, held, files, annotations)

    async def _publish(self, authority: Authority, wish: Wish, held: Held) -> None:
        bundle = authority.bundle()
        annotations = annotations_for(wish, held, bundle, held.generation, self._now())
        await self._write(wish, held, {ROOTS_FILE: bundle.files[ROOTS_FILE]}, annotations)

    async def _acknowledge(self, authority: Authority, wish: Wish, held: Held) -> None:
        key = (wish.namespace, wish.secret)
        if held.identity is not None:
            identity, serial = str(wish.spiffe_id(authority.trust_domain)), held.identity.serial_number
            await authority.acknowledge(identity, instance_of(key), held.anchors, f"{serial:x}")
            self._acknowledged[key] = (serial, held.anchors)

    async def _rehearse(self, authority: Authority, wish: Wish, held: Held | None) -> None:
        """Nothing is certified for a Secret that could not be written: each try would add to the list of peers.

        A namespace that ends, a quota, an admission webhook, a Secret that was made immutable, or one of that name that
        is somebody else's: the API server says so of a dry run.
        """
        bundle = authority.bundle()
        annotations = annotations_for(wish, held, bundle, bundle.generation, self._now())
        try:
            await self._put(wish, held, dict.fromkeys(_FILES, b""), annotations, dry_run=True)
        except ApiRefused as error:
            if held is not None or error.reason != "AlreadyExists":
                raise
            raise UserError(
                "a Secret of that name is there and was not made by us (it lacks our labels); delete it, or name "
                f"another in {SECRET_ANNOTATION}"
            ) from None

    async def _write(self, wish: Wish, held: Held | None, files: dict[str, bytes], annotations: dict[str, str]) -> None:
        """Make the Secret, or change it from the version that was decided upon."""
        self._held.wrote(await self._put(wish, held, files, annotations))

    async def _put(
        self,
        wish: Wish,
        held: Held | None,
        files: dict[str, bytes],
        annotations: dict[str, str],
        *,
        dry_run: bool = False,
    ) -> Object:
        if held is None:
            secret = tls_secret(wish.secret, wish.namespace, files, labels=LABELS, annotations=annotations)
            secret["metadata"]["ownerReferences"] = [_owner(wish)]
            return await self._cluster.create(resource("secrets", namespace=wish.namespace), secret, dry_run=dry_run)
        body = {
            "metadata": {"resourceVersion": held.version, "annotations": annotations},
            "data": {name: base64.b64encode(content).decode("ascii") for name, content in files.items()},
        }
        path = resource("secrets", namespace=wish.namespace, name=wish.secret)
        return await self._cluster.patch(path, body, dry_run=dry_run)


def instance_of(key: Key) -> str:
    """What tells this holder of the identity from the pods that enrol by themselves."""
    namespace, name = key
    if len(name) > _LONGEST_SHOWN_NAME:
        name = hashlib.sha256(name.encode()).hexdigest()[:32]
    return f"secret:{namespace}/{name}"


def _wish_or_fault(service_account: Object, cluster_domain: str) -> Wish | str | None:
    """What it wants; for what it may not have, one sentence that says why."""
    try:
        return wish_of(service_account, cluster_domain)
    except UserError as error:
        return str(error)


def _owner(wish: Wish) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "name": wish.service_account, "uid": wish.uid}


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private_pem(key: MLDSA87PrivateKey | MLKEM1024PrivateKey) -> bytes:
    """Unencrypted PKCS#8 in seed form, as everywhere (RFC 9881 §6, RFC 9935)."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
