"""A cluster as the outside of an authority: the Parts of certmgr/parts.py, made of its API server."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import AsyncIterator, Callable

from certmgr.audit import Journal
from certmgr.kubernetes.client import connect
from certmgr.kubernetes.election import Election
from certmgr.kubernetes.secret_store import SecretStore
from certmgr.kubernetes.service_secrets import ServiceSecrets
from certmgr.kubernetes.token_review import TokenReviewer
from certmgr.kubernetes.trust_config_maps import TrustConfigMaps
from certmgr.parts import Chore, Parts
from mesh.names import CONTROL_NAMESPACE


@contextlib.asynccontextmanager
async def cluster_store(kubeconfig: str | None, namespace: str = CONTROL_NAMESPACE) -> AsyncIterator[SecretStore]:
    """Yield the store alone, for the command line's `qbitel ca … --kubeconfig`. Raises UserError, as `connect`."""
    async with connect(kubeconfig) as cluster:
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
) -> AsyncIterator[Parts]:
    """Yield what an authority in a cluster is put together from.

    `kubeconfig` as for `connect`: None in a pod. `replica` is the pod's name. With `service_secrets`, service accounts
    may ask for Secrets by annotation; it needs the right to write Secrets in every namespace, and is left out where
    nobody asks for that. Raises UserError for a configuration that cannot be used.
    """
    async with connect(kubeconfig) as cluster:
        election = Election(cluster, namespace, replica, now=now)
        chores: list[Chore] = [election.run, TrustConfigMaps(cluster, election.is_leader).run]
        if service_secrets:
            chores.append(ServiceSecrets(cluster, election.is_leader, now=now).run)
        yield Parts(
            store=SecretStore(cluster, namespace),
            journal=journal,
            replica=replica,
            tokens=TokenReviewer(cluster, trust_domain, now=now),
            is_leader=election.is_leader,
            chores=tuple(chores),
        )
