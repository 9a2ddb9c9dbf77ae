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
from certmgr.kubernetes.client import ApiRefused, Cluster, resource
from certmgr.kubernetes.held_secrets import LABELS, Held, Task, annotations_for, held_of, task_for
from certmgr.kubernetes.mirror import Mirror
from certmgr.kubernetes.objects import Key, Object
from certmgr.kubernetes.reconciler import Reconciler, Step
from certmgr.kubernetes.service_accounts import SECRET_ANNOTATION, Wish, wish_of
from certmgr.parts import Authority
from certmgr.secrets import tls_secret
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
# An instance's name has 128 characters at most (certmgr/peers.py); a namespace takes up to 63 of them.
_LONGEST_SHOWN_NAME: Final = 56

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
        self._reconciler = Reconciler(self._plan, is_leader)
        self._wishes = Mirror(
            cluster,
            resource("serviceaccounts"),
            lambda account: _wish_or_log(account, cluster_domain),
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
        self._contested: frozenset[str] = frozenset()

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

    def _plan(self) -> Sequence[Step]:
        if self._authority is None or not (self._wishes.ready and self._held.ready):
            return ()
        steps = []
        wanted = self._by_secret()
        self._acknowledged = {key: value for key, value in self._acknowledged.items() if key in wanted}
        for key, wish in sorted(wanted.items()):
            step = self._step(self._authority, key, wish)
            if step is not None:
                steps.append(step)
        return steps

    def _by_secret(self) -> dict[Key, Wish]:
        """One service account per Secret: whoever has it keeps it, else the first by name."""
        wanted: dict[Key, Wish] = {}
        contested = set()
        for _, wish in sorted(self._wishes.items.items()):
            key = (wish.namespace, wish.secret)
            held = self._held.items.get(key)
            if key in wanted:
                contested.add(f"{wish.namespace}/{wish.secret}")
            if key not in wanted or (held is not None and held.service_account == wish.service_account):
                wanted[key] = wish
        for name in sorted(contested - self._contested):
            _log.warning("%s: more than one service account wants this Secret by %s", name, SECRET_ANNOTATION)
        self._contested = frozenset(contested)
        return wanted

    def _step(self, authority: Authority, key: Key, wish: Wish) -> Step | None:
        about = "/".join(key)
        held = self._held.items.get(key)
        if held is None:
            return Step(about, "make the Secret", partial(self._renew, authority, wish, None))
        task = task_for(
            wish,
            held,
            authority.bundle(),
            self._now(),
            trust_domain=authority.trust_domain,
            is_revoked=authority.is_revoked,
            acknowledged=self._acknowledged_for(key, held),
        )
        match task:
            case None:
                return None
            case Task.RENEW:
                act = partial(self._renew, authority, wish, held)
            case Task.PUBLISH:
                act = partial(self._publish, authority, wish, held)
            case Task.ACKNOWLEDGE:
                act = partial(self._acknowledge, authority, wish, held)
        return Step(about, task.value, act)

    def _acknowledged_for(self, key: Key, held: Held) -> str:
        serial, anchors = self._acknowledged.get(key, (0, ""))
        return anchors if held.identity is not None and held.identity.serial_number == serial else ""

    async def _renew(self, authority: Authority, wish: Wish, held: Held | None) -> None:
        if held is None:
            await self._check_free(wish)
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

    async def _check_free(self, wish: Wish) -> None:
        """Nothing is certified for a Secret that could not be made: one of that name is somebody else's."""
        try:
            await self._cluster.get(resource("secrets", namespace=wish.namespace, name=wish.secret))
        except ApiRefused as error:
            if error.status == 404:
                return
            raise
        raise UserError(
            "a Secret of that name is there and was not made by us (it lacks our labels); delete it, or name another "
            f"in {SECRET_ANNOTATION}"
        )

    async def _write(self, wish: Wish, held: Held | None, files: dict[str, bytes], annotations: dict[str, str]) -> None:
        """Make the Secret, or change it from the version that was decided upon."""
        if held is None:
            secret = tls_secret(wish.secret, wish.namespace, files, labels=LABELS, annotations=annotations)
            secret["metadata"]["ownerReferences"] = [_owner(wish)]
            written = await self._cluster.create(resource("secrets", namespace=wish.namespace), secret)
        else:
            body = {
                "metadata": {"resourceVersion": held.version, "annotations": annotations},
                "data": {name: base64.b64encode(content).decode("ascii") for name, content in files.items()},
            }
            path = resource("secrets", namespace=wish.namespace, name=wish.secret)
            written = await self._cluster.patch(path, body)
        self._held.wrote(written)


def instance_of(key: Key) -> str:
    """What tells this holder of the identity from the pods that enrol by themselves."""
    namespace, name = key
    if len(name) > _LONGEST_SHOWN_NAME:
        name = hashlib.sha256(name.encode()).hexdigest()[:32]
    return f"secret:{namespace}/{name}"


def _wish_or_log(service_account: Object, cluster_domain: str) -> Wish | None:
    """What it wants; what it may not have is said in the log and not had."""
    try:
        return wish_of(service_account, cluster_domain)
    except UserError as error:
        metadata = service_account["metadata"]
        _log.warning("service account %s/%s: %s", metadata["namespace"], metadata["name"], error)
        return None


def _owner(wish: Wish) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "name": wish.service_account, "uid": wish.uid}


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private_pem(key: MLDSA87PrivateKey | MLKEM1024PrivateKey) -> bytes:
    """Unencrypted PKCS#8 in seed form, as everywhere (RFC 9881 §6, RFC 9935)."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
