"""Kubernetes Secrets as plain data: what `kubectl apply` takes, in an order that does not change.

Sources: the Kubernetes API reference for Secret v1 (type kubernetes.io/tls wants tls.crt and tls.key; at most 1 MiB)
and its rules for names (RFC 1123 labels and subdomains).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any, Final

from mesh.names import CERTIFICATE_FILE, PRIVATE_KEY_FILE

# The API server's limit on the sum of a Secret's decoded values.
MAX_SECRET_SIZE: Final = 1 << 20
_MAX_SUBDOMAIN: Final = 253
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")
_DATA_KEY: Final = re.compile(r"[A-Za-z0-9._-]{1,253}\Z")


def tls_secret(
    name: str,
    namespace: str,
    files: Mapping[str, bytes],
    *,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
) -> dict[str, Any]:
    """Return a Secret of type kubernetes.io/tls: dicts and strings alone, so that JSON and YAML writers take it.

    `files` are in the order of the result, labels and annotations are sorted. The result holds private keys in
    base64, which hides nothing: it is as secret as they are. Raises ValueError, naming the argument, for a name
    that Kubernetes refuses, for a missing tls.crt or tls.key, and for more than 1 MiB.
    """
    check_subdomain("name", name)
    check_label("namespace", namespace)
    for needed in (CERTIFICATE_FILE, PRIVATE_KEY_FILE):
        if needed not in files:
            raise ValueError(f"files: {needed} is missing; a Secret of type kubernetes.io/tls must hold it")
    for key in files:
        if not _DATA_KEY.match(key):
            raise ValueError(f"files: {key[:80]!r} is no key of a Secret: letters, digits, '.', '-' and '_'")
    if sum(map(len, files.values())) > MAX_SECRET_SIZE:
        raise ValueError(f"files: more than {MAX_SECRET_SIZE} bytes, which is what a Secret can hold")
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": dict(sorted(labels.items())),
            "annotations": dict(sorted(annotations.items())),
        },
        "type": "kubernetes.io/tls",
        "data": {key: base64.b64encode(content).decode("ascii") for key, content in files.items()},
    }


def check_label(argument: str, value: object) -> str:
    """Return `value`, or raise ValueError naming `argument` where it is no RFC 1123 label in lower case."""
    if not isinstance(value, str) or not _LABEL.match(value):
        raise ValueError(
            f"{argument}: {str(value)[:80]!r} is no name for Kubernetes; give 1 to 63 lower-case letters, digits "
            "and inner dashes"
        )
    return value


def check_subdomain(argument: str, value: object) -> str:
    """Return `value`, or raise ValueError naming `argument` where it is no RFC 1123 subdomain in lower case."""
    if not isinstance(value, str) or len(value) > _MAX_SUBDOMAIN or not all(map(_LABEL.match, value.split("."))):
        raise ValueError(
            f"{argument}: {str(value)[:80]!r} is no name for Kubernetes; give at most {_MAX_SUBDOMAIN} characters: "
            "lower-case letters, digits and inner dashes, in parts joined by dots"
        )
    return value
