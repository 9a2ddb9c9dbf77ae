"""The webhook's certificate in a Secret that the injector mounts, and its authority in the webhook's configuration.

Both heal themselves, whoever changed or deleted them. Where one certificate follows another, its authority stands in
the configuration first, beside the one from before, and only when API servers have had the time to take that up is the
Secret written: there is no moment at which an injector shows what the API server does not trust.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from cryptography import x509

from certmgr.audit import Journal
from certmgr.kubernetes.trust_config_maps import MANAGED_BY, OURS
from certmgr.parts import Authority
from certmgr.secrets import tls_secret
from certmgr.store import StoreUnavailable
from certmgr.webhook_certificate import HeldCertificate, WebhookCertificate, alive, issue, names_of, pem, read
from certmgr.wire import timestamp
from kube.client import Cluster, resource
from kube.mirror import Mirror
from kube.objects import Object
from kube.reconciler import Reconciler, Step
from mesh.names import ROOTS_FILE, WEBHOOK_NAME, WEBHOOK_SECRET

# API servers hear of a changed configuration by a watch, within a second; one that is busy, or has just lost its watch,
# takes some seconds more.
TAKE_UP_SECONDS: Final = 20.0
_ADMISSION: Final = "apis/admissionregistration.k8s.io/v1"
_SECRET_TYPE: Final = "kubernetes.io/tls"  # noqa: S105  # a type's name

_log = logging.getLogger("qbitel.certmgr")


@dataclass(frozen=True, slots=True)
class PresentSecret:
    """The Secret as far as we must know it. `is_fixed`: it can only be deleted and made anew."""

    is_ours: bool
    version: str
    uid: str
    is_fixed: bool
    roots: bytes
    held: HeldCertificate | None


@dataclass(frozen=True, slots=True)
class Registration:
    """The MutatingWebhookConfiguration: its version, and its webhooks as they stand there."""

    version: str
    webhooks: tuple[Object, ...]


class WebhookCertificates:
    """`run` is a chore: it keeps the Secret and the webhooks' caBundle, while `is_leader`.

    `webhook_name` is that of the configuration and of the injector's Service, which is in `namespace`.
    """

    def __init__(
        self,
        cluster: Cluster,
        is_leader: Callable[[], bool],
        *,
        namespace: str,
        journal: Journal,
        now: Callable[[], datetime.datetime],
        webhook_name: str = WEBHOOK_NAME,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._journal = journal
        self._now = now
        self._webhook_name = webhook_name
        self._clock = clock
        self._secret = f"{namespace}/{WEBHOOK_SECRET}"
        self._dns_names = names_of(webhook_name, namespace)
        self._reconciler = Reconciler(self._plan, is_leader, failures=(StoreUnavailable,))
        self._secrets = Mirror(
            cluster,
            resource("secrets", namespace=namespace),
            present_of,
            self._reconciler.poke,
            {"fieldSelector": f"metadata.name={WEBHOOK_SECRET}"},
        )
        self._registrations = Mirror(
            cluster,
            resource("mutatingwebhookconfigurations", api=_ADMISSION),
            registration_of,
            self._reconciler.poke,
            {"fieldSelector": f"metadata.name={webhook_name}"},
        )
        # Who is trusted for what injectors show now; stays when the Secret is deleted, because they go on with it.
        self._known: tuple[x509.Certificate, ...] = ()
        # What is to follow. It is in memory alone until it is written: a leader that is gone has made it for nothing.
        self._next: WebhookCertificate | None = None
        # The bundle that stands in the configuration, and since when (the clock's time).
        self._standing: tuple[str, float] | None = None
        self._noted = 0
        self._is_foreign = False

    async def run(self, _authority: Authority) -> None:
        """Until cancelled; whatever the API server does is survived."""
        async with asyncio.TaskGroup() as group:
            for part in (self._secrets.run(), self._registrations.run(), self._reconciler.run()):
                group.create_task(part)

    async def _plan(self) -> Sequence[Step]:
        if not (self._secrets.ready and self._registrations.ready):
            return ()
        present = self._secrets.items.get((self._namespace, WEBHOOK_SECRET))
        self._tell_foreign(present is not None and not present.is_ours)
        if self._is_foreign:
            return ()
        now = self._now()
        held = None if present is None else present.held
        if held is not None and not held.is_good(self._dns_names[0], now):
            held = None
        if held is not None:
            self._known = held.trusted(now)
        self._next = self._following(held, now)
        trusted = alive((*((self._next.authority,) if self._next else ()), *self._known), now)
        registration = self._register(trusted)
        steps = [] if registration is None else [registration]
        if self._next is not None:
            if not self._known or self._is_taken_up():
                steps.append(self._publish(present, self._next, trusted))
        elif present is not None and present.roots != pem(trusted) and not present.is_fixed:
            act = partial(self._patch, present, {ROOTS_FILE: pem(trusted)})
            steps.append(Step(self._secret, "bring the webhook's authorities up to date", act, _goal(trusted)))
        return steps

    def _following(self, held: HeldCertificate | None, now: datetime.datetime) -> WebhookCertificate | None:
        """The certificate that is to take the place of `held`: made once, and kept until it is written."""
        if held is not None and not held.is_due(now):
            return None
        made = self._next
        if made is not None and not HeldCertificate(made.certificate, (made.authority,)).is_due(now):
            return made
        return issue(self._dns_names, now)

    def _register(self, trusted: Sequence[x509.Certificate]) -> Step | None:
        """The step that puts `trusted` into every webhook of ours; None where it stands there."""
        bundle = base64.b64encode(pem(trusted)).decode("ascii")
        found = self._registrations.items.get(("", self._webhook_name))
        ours = [] if found is None else [one for one in found.webhooks if self._is_ours(one)]
        if found is not None and any(_client(one).get("caBundle") != bundle for one in ours):
            self._standing = None
            act = partial(self._trust, found, bundle)
            return Step(self._webhook_name, "tell the API server whom to trust", act, _goal(trusted))
        if self._standing is None or self._standing[0] != bundle:
            # Where there is no configuration nobody has to take anything up.
            self._standing = bundle, self._clock() if ours else self._clock() - TAKE_UP_SECONDS
        return None

    def _is_taken_up(self) -> bool:
        return self._standing is not None and self._clock() - self._standing[1] >= TAKE_UP_SECONDS

    def _is_ours(self, webhook: Object) -> bool:
        """Whether it leads to our injector: another namespace's has another certificate. A URL may lead anywhere."""
        service = _client(webhook).get("service")
        return not isinstance(service, Mapping) or service.get("namespace") == self._namespace

    async def _trust(self, found: Registration, bundle: str) -> None:
        """Change the caBundles alone. A merge patch replaces a list whole, hence the version."""
        webhooks = [
            {**one, "clientConfig": {**_client(one), "caBundle": bundle}} if self._is_ours(one) else one
            for one in found.webhooks
        ]
        path = resource("mutatingwebhookconfigurations", name=self._webhook_name, api=_ADMISSION)
        body = {"metadata": {"resourceVersion": found.version}, "webhooks": webhooks}
        self._registrations.wrote(await self._cluster.patch(path, body))
        self._standing = bundle, self._clock()

    def _publish(
        self, present: PresentSecret | None, following: WebhookCertificate, trusted: Sequence[x509.Certificate]
    ) -> Step:
        if present is not None and present.is_fixed:
            act = partial(self._delete, present)
            return Step(self._secret, "remove a Secret that cannot be changed", act, _goal(trusted))
        act = partial(self._write, present, following, trusted)
        return Step(self._secret, "give the webhook a new certificate", act, _goal(trusted))

    async def _write(
        self, present: PresentSecret | None, following: WebhookCertificate, trusted: Sequence[x509.Certificate]
    ) -> None:
        await self._note(following.certificate)
        files = following.files(trusted)
        if present is not None:
            await self._patch(present, files)
        else:
            secret = tls_secret(WEBHOOK_SECRET, self._namespace, files, labels={MANAGED_BY: OURS}, annotations={})
            self._secrets.wrote(await self._cluster.create(resource("secrets", namespace=self._namespace), secret))
        # Whatever becomes of the Secret, injectors may have this certificate from now on, and none is written twice.
        self._known, self._next = tuple(trusted), None

    async def _patch(self, present: PresentSecret, files: Mapping[str, bytes]) -> None:
        """Change the files alone: others' annotations and labels are none of ours."""
        data = {name: base64.b64encode(content).decode("ascii") for name, content in files.items()}
        body = {"metadata": {"resourceVersion": present.version}, "data": data}
        self._secrets.wrote(await self._cluster.patch(self._secret_path, body))

    async def _delete(self, present: PresentSecret) -> None:
        await self._cluster.delete(self._secret_path, {"uid": present.uid, "resourceVersion": present.version})

    async def _note(self, certificate: x509.Certificate) -> None:
        """Write it into the audit log, once, however often it takes to write the Secret."""
        if self._noted == certificate.serial_number:
            return
        await self._journal.append(
            {
                "time": timestamp(self._now()),
                "event": "webhook certificate",
                "names": list(self._dns_names),
                "serial": f"{certificate.serial_number:x}",
                "not_after": timestamp(certificate.not_valid_after_utc),
            }
        )
        self._noted = certificate.serial_number

    def _tell_foreign(self, is_foreign: bool) -> None:
        if is_foreign and not self._is_foreign:
            _log.warning(
                "the Secret %s is not ours (no label %s=%s): it and the webhook's caBundle are left alone",
                *(self._secret, MANAGED_BY, OURS),
            )
        self._is_foreign = is_foreign

    @property
    def _secret_path(self) -> str:
        return resource("secrets", namespace=self._namespace, name=WEBHOOK_SECRET)


def present_of(secret: Object) -> PresentSecret:
    """Read the Secret. Whatever somebody has made of its data is no error."""
    metadata = secret["metadata"]
    files = {name: _decoded(value) for name, value in (secret.get("data") or {}).items()}
    return PresentSecret(
        is_ours=(metadata.get("labels") or {}).get(MANAGED_BY) == OURS,
        version=metadata["resourceVersion"],
        uid=metadata["uid"],
        is_fixed=bool(secret.get("immutable")) or secret.get("type") != _SECRET_TYPE,
        roots=files.get(ROOTS_FILE, b""),
        held=read(files),
    )


def registration_of(configuration: Object) -> Registration:
    """Read the MutatingWebhookConfiguration."""
    return Registration(configuration["metadata"]["resourceVersion"], tuple(configuration.get("webhooks") or ()))


def _client(webhook: Object) -> Mapping[str, Any]:
    """How the API server reaches it, and whom it trusts there."""
    found: Mapping[str, Any] = webhook.get("clientConfig") or {}
    return found


def _goal(trusted: Sequence[x509.Certificate]) -> str:
    return hashlib.sha256(pem(trusted)).hexdigest()


def _decoded(value: str) -> bytes:
    try:
        return base64.b64decode(value)
    except (TypeError, ValueError):
        return b""
