"""What a pod may ask for by annotation: our words, and Istio's and Linkerd's for the same; text, not yet checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from mesh import names
from mesh.documents import read_documents

_ISTIO_TRAFFIC: Final = "traffic.sidecar.istio.io/"
_ISTIO_SIDECAR: Final = "sidecar.istio.io/"
ISTIO_PROXY_CONFIG: Final = "proxy.istio.io/config"  # YAML, of which one field is ours
_HOLD: Final = "holdApplicationUntilProxyStarts"

STATUS: Final = names.ANNOTATION_PREFIX + "status"

# Ours, without the prefix → what others call it.
ALIASES: Final[dict[str, str | None]] = {
    "include-inbound-ports": _ISTIO_TRAFFIC + "includeInboundPorts",
    "exclude-inbound-ports": _ISTIO_TRAFFIC + "excludeInboundPorts",
    "include-outbound-ports": _ISTIO_TRAFFIC + "includeOutboundPorts",
    "exclude-outbound-ports": _ISTIO_TRAFFIC + "excludeOutboundPorts",
    "include-outbound-cidrs": _ISTIO_TRAFFIC + "includeOutboundIPRanges",
    "exclude-outbound-cidrs": _ISTIO_TRAFFIC + "excludeOutboundIPRanges",
    "exclude-interfaces": _ISTIO_TRAFFIC + "excludeInterfaces",
    "exclude-uids": None,
    "interception-mode": _ISTIO_SIDECAR + "interceptionMode",
    "proxy-image": _ISTIO_SIDECAR + "proxyImage",
    "proxy-cpu": _ISTIO_SIDECAR + "proxyCPU",
    "proxy-cpu-limit": _ISTIO_SIDECAR + "proxyCPULimit",
    "proxy-memory": _ISTIO_SIDECAR + "proxyMemory",
    "proxy-memory-limit": _ISTIO_SIDECAR + "proxyMemoryLimit",
    "log-level": _ISTIO_SIDECAR + "logLevel",
    "rewrite-probes": _ISTIO_SIDECAR + "rewriteAppHTTPProbers",
    "native-sidecar": _ISTIO_SIDECAR + "nativeSidecar",
    "hold-application": None,  # Istio's is a field of ISTIO_PROXY_CONFIG
    "user-volume": _ISTIO_SIDECAR + "userVolume",
    "user-volume-mount": _ISTIO_SIDECAR + "userVolumeMount",
    "opaque-ports": "config.linkerd.io/opaque-ports",
    "profile": None,
    "mtls-mode": None,
    "drain-seconds": None,
}
# Keys under our prefix that say no wish: what decides, and what we write.
_OTHERS: Final = frozenset({names.INJECT_KEY, STATUS})


@dataclass(frozen=True, slots=True)
class Asked:
    """What one wish is, and the annotation that says it (as its author wrote the key)."""

    key: str
    value: str


def read_annotations(annotations: Mapping[str, str]) -> tuple[dict[str, Asked], list[str]]:
    """What is asked for, by our name without the prefix, and warnings. Ours win over an alias that says otherwise."""
    asked: dict[str, Asked] = {}
    warnings: list[str] = []
    for name, alias in ALIASES.items():
        ours = names.ANNOTATION_PREFIX + name
        if alias is not None and alias in annotations:
            asked[name] = Asked(alias, annotations[alias].strip())
        if name == "hold-application":
            _read_hold(annotations, asked, warnings)
        if ours in annotations:
            if name in asked and asked[name].value != annotations[ours].strip():
                warnings.append(f"{ours} and {asked[name].key} differ; {ours} holds")
            asked[name] = Asked(ours, annotations[ours].strip())
    warnings += [_unknown(key) for key in annotations if _is_unknown(key)]
    return asked, warnings


def _read_hold(annotations: Mapping[str, str], asked: dict[str, Asked], warnings: list[str]) -> None:
    text = annotations.get(ISTIO_PROXY_CONFIG)
    if text is None:
        return
    documents, problems = read_documents(text.encode(), ISTIO_PROXY_CONFIG)
    if problems:
        warnings.append(f"{ISTIO_PROXY_CONFIG} is left out: {problems[0].message}")
    for document in documents:
        if isinstance(value := document.value.get(_HOLD), bool):
            asked["hold-application"] = Asked(f"{ISTIO_PROXY_CONFIG} {_HOLD}", "true" if value else "false")


def _is_unknown(key: str) -> bool:
    prefix, name = key[: len(names.ANNOTATION_PREFIX)], key[len(names.ANNOTATION_PREFIX) :]
    return prefix == names.ANNOTATION_PREFIX and name not in ALIASES and key not in _OTHERS


def _unknown(key: str) -> str:
    # Only the first part of a stranger's key, which may have 253 + 63 characters.
    shown = key[:80]
    near = next(
        (name for name in ALIASES if name.replace("-", "") == key.partition("/")[2].replace("-", "").lower()), ""
    )
    hint = f"; do you mean {names.ANNOTATION_PREFIX}{near}?" if near else ""
    return f"{shown} is no annotation that we know, and does nothing{hint}"
