"""A pod for trial: it is created in a dry run, so that every webhook sees it, and never is."""

from __future__ import annotations

import secrets
from typing import Any, Final

from cli.checks.facts import DryRun
from kube.client import ApiRefused, ApiUnavailable, Cluster, resource

# A webhook has ten seconds by default, and there may be several.
_SECONDS: Final = 20.0


async def try_pod(cluster: Cluster, namespace: str) -> DryRun:
    """What becomes of a pod in `namespace`. Raises ApiRefused where whoever asks may not create pods there."""
    pod = trial_pod(f"qbitel-check-{secrets.token_hex(4)}", namespace)
    try:
        made = await cluster.create(resource("pods", namespace=namespace), pod, dry_run=True, seconds=_SECONDS)
    except ApiRefused as error:
        if "cannot create resource" in str(error):  # RBAC's words; admission has not been asked then
            raise
        return DryRun(namespace, None, str(error))
    except ApiUnavailable as error:  # a webhook that cannot be called is an internal error
        return DryRun(namespace, None, str(error))
    return DryRun(namespace, made)


def trial_pod(name: str, namespace: str) -> dict[str, Any]:
    """A pod that every policy of a cluster ought to let in; it is never run."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65534,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "check",
                    "image": "registry.k8s.io/pause:3.9",
                    "resources": {
                        "requests": {"cpu": "1m", "memory": "1Mi"},
                        "limits": {"cpu": "10m", "memory": "8Mi"},
                    },
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
        },
    }
