"""A cluster as the outside of an authority: the Parts of certmgr/parts.py, made of its API server."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import AsyncIterator, Callable
from typing import Final

from certmgr.audit import Journal
from certmgr.kubernetes.secret_store import SecretStore
from certmgr.kubernetes.service_secrets import ServiceSecrets
from certmgr.kubernetes.token_review import TokenReviewer
from certmgr.kubernetes.trust_config_maps import TrustConfigMaps
from certmgr.kubernetes.webhook_certificates import WebhookCertificates
from certmgr.parts import Authority, Chore, Parts
from kube.client import connect
from kube.election import Election
from mesh.names import AUTHORITY_SERVICE, CONTROL_NAMESPACE

LEASE_NAME: Final = AUTHORITY_SERVICE


@contextlib.asynccontextmanager
async def cluster_store(kubeconfig: str | None, namespace: str = CONTROL_NAMESPACE) -> AsyncIterator[SecretStore]:
    """Yield the store alone, for the command line's `qbitel ca … --kubeconfig`. Raises UserError, as `connect`."""
    async with connect(kubeconfig, AUTHORITY_SERVICE) as cluster:
        yield SecretStore(cluster, namespace)


@contextlib.asynccontextmanager
async def cluster_parts(
    *,
    kubeconfig: str | None,
    trust_domain: str,
    replica: str,
    journal: Journal,
    now: Callable[[], datetime.datetime],
    namespace: str = CONTROL_NAMESPACE,
    service_secrets: bool = False,
    webhook_name: str | None = None,
) -> AsyncIterator[Parts]:
    """Yield what an authority in a cluster is put together from.

    `kubeconfig` as for `connect`: None in a pod. `replica` is the pod's name. With `service_secrets`, service accounts
    may ask for Secrets by annotation; it needs the right to write Secrets in every namespace, and is left out where
    nobody asks for that. `webhook_name` is what the injector's MutatingWebhookConfiguration and its Service are called,
    where its certificate is to be kept. Raises UserError for a configuration that cannot be used.
    """
    async with connect(kubeconfig, AUTHORITY_SERVICE) as cluster:
        election = Election(cluster, namespace, LEASE_NAME, replica, now=now)

        async def stand_for_election(_authority: Authority) -> None:
            await election.run()

        chores: list[Chore] = [stand_for_election, TrustConfigMaps(cluster, election.is_leader).run]
        if service_secrets:
            chores.append(ServiceSecrets(cluster, election.is_leader, now=now).run)
        if webhook_name is not None:
            certificates = WebhookCertificates(
                cluster, election.is_leader, namespace=namespace, journal=journal, now=now, webhook_name=webhook_name
            )
            chores.append(certificates.run)
        yield Parts(
            store=SecretStore(cluster, namespace),
            journal=journal,
            replica=replica,
            tokens=TokenReviewer(cluster, trust_domain, now=now),
            is_leader=election.is_leader,
            chores=tuple(chores),
        )
