"""How a cluster is told of the webhook: a MutatingWebhookConfiguration that concerns the mesh's pods and no others."""

from __future__ import annotations

import base64
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from injector.config import IGNORED_NAMESPACES, SidecarConfig
from injector.pods import Object, listed, part
from mesh import names
from mesh.errors import UserError

# The webhook's paths say what the API server's selectors have found out.
LABELLED_NAMESPACE_PATH: Final = "/inject/namespace"
LABELLED_POD_PATH: Final = "/inject/pod"
SERVICE_PORT: Final = 443
_TIMEOUT: Final = 5  # seconds; an answer takes milliseconds, and kubectl waits for it
# Kubernetes' label of each namespace with its name (since 1.22).
_NAME_LABEL: Final = "kubernetes.io/metadata.name"
# A label of RFC 1123, which a Service and a part of the webhooks' names must be.
_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")


class IstioSidecarInjector:
    """Automatic injection of the sidecar into the pods of a cluster.

    `namespace` is that of the webhook's Service, which is called `webhook_name`. `config` is what the pods are given.
    For pods of `excluded_namespaces` the API server never calls, labelled or not, as for those of kube-system and its
    like. Raises UserError for a name that Kubernetes would refuse.
    """

    def __init__(
        self,
        namespace: str = names.CONTROL_NAMESPACE,
        webhook_name: str = names.WEBHOOK_NAME,
        config: SidecarConfig | None = None,
        excluded_namespaces: Collection[str] = (),
    ) -> None:
        excluded = (("excluded_namespaces", name) for name in excluded_namespaces)
        for what, name in (("namespace", namespace), ("webhook_name", webhook_name), *excluded):
            if not _LABEL.match(name):
                raise UserError(f"{what}: {name[:80]!r} is no name; lower-case letters, digits and dashes, at most 63")
        self.namespace = namespace
        self.webhook_name = webhook_name
        self.config = SidecarConfig() if config is None else config
        self.excluded_namespaces = frozenset(excluded_namespaces)

    def create_webhook_configuration(self, ca_bundle: bytes | None = None) -> Object:
        """The MutatingWebhookConfiguration for `kubectl apply`, as JSON has it.

        `ca_bundle` is the PEM of the authority that signed the webhook's certificate. Without it the API server
        trusts its own roots alone, so that pods of the mesh are refused until a bundle is there.
        """
        ignored = sorted(IGNORED_NAMESPACES | self.excluded_namespaces | {self.namespace})
        not_ignored = {"key": _NAME_LABEL, "operator": "NotIn", "values": ignored}
        namespace_label = {"key": names.NAMESPACE_LABEL, "values": ["enabled"]}
        pod_label = {"key": names.INJECT_KEY}
        return {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": self.webhook_name, "labels": {"app": self.webhook_name}},
            "webhooks": [
                self._webhook(
                    "namespace",
                    LABELLED_NAMESPACE_PATH,
                    ca_bundle,
                    [{**namespace_label, "operator": "In"}, not_ignored],
                    [{**pod_label, "operator": "NotIn", "values": ["false", "disabled"]}],
                ),
                self._webhook(
                    "pod",
                    LABELLED_POD_PATH,
                    ca_bundle,
                    [{**namespace_label, "operator": "NotIn"}, not_ignored],
                    [{**pod_label, "operator": "In", "values": ["true", "enabled"]}],
                ),
            ],
        }

    def _webhook(
        self, name: str, path: str, ca_bundle: bytes | None, of_namespace: list[Object], of_pod: list[Object]
    ) -> Object:
        client: Object = {
            "service": {"name": self.webhook_name, "namespace": self.namespace, "path": path, "port": SERVICE_PORT}
        }
        if ca_bundle is not None:
            client["caBundle"] = base64.b64encode(ca_bundle).decode()
        return {
            "name": f"{name}.{self.webhook_name}.qbitel.io",
            "admissionReviewVersions": ["v1"],
            "clientConfig": client,
            "rules": [
                {
                    "apiGroups": [""],
                    "apiVersions": ["v1"],
                    "operations": ["CREATE"],
                    "resources": ["pods"],
                    "scope": "Namespaced",
                }
            ],
            "namespaceSelector": {"matchExpressions": of_namespace},
            "objectSelector": {"matchExpressions": of_pod},
            # Nothing but pods of the mesh comes here, and those must not start without their sidecar.
            "failurePolicy": "Fail",
            "matchPolicy": "Equivalent",
            "reinvocationPolicy": "IfNeeded",
            "sideEffects": "None",
            "timeoutSeconds": _TIMEOUT,
        }


def namespaces_left_out(webhooks: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """The namespaces for which none of these webhooks of a MutatingWebhookConfiguration is called, by its own word."""
    left_out = [
        {
            str(name)
            for one in listed(part(hook, "namespaceSelector"), "matchExpressions")
            if (one.get("key"), one.get("operator")) == (_NAME_LABEL, "NotIn") and isinstance(one.get("values"), list)
            for name in one["values"]
        }
        for hook in webhooks
    ]
    return frozenset(set.intersection(*left_out)) if left_out else frozenset()
