"""What a pod's annotations come to, checked: every value is good, or the pod is refused with the annotation's name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from injector.annotations import Asked, read_annotations
from injector.config import LOG_LEVELS, InjectorConfig
from injector.interception import FROM_ANNOTATIONS, Interception
from injector.pods import Object
from injector.quantity import quantity
from injector.refusal import PodRefused, one_line
from mesh.modes import MTLSMode
from pqtls import PROFILES

_YES: Final = frozenset({"true", "enabled"})
_NO: Final = frozenset({"false", "disabled"})
# Istio's levels that we do not have, as the nearest that we do.
_LEVELS: Final = {"trace": "debug", "critical": "error", "off": "error", **{level: level for level in LOG_LEVELS}}
_ENVOY: Final = "proxyv2"  # the image that Istio's users name by their annotation
# What a pod's own grace can be in practice; a day is longer than any drain.
_LONGEST_DRAIN: Final = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """One pod's settings. `resources` has Kubernetes' form; `captured` is False where no rules are made."""

    captured: bool
    interception: Interception
    image: str
    resources: Object
    log_level: str
    rewrite_probes: bool
    native: bool
    hold: bool
    user_volumes: tuple[Object, ...]
    user_mounts: tuple[Object, ...]
    opaque_ports: str
    profile: str
    mode: MTLSMode
    drain_seconds: float | None


def read_wishes(annotations: Mapping[str, str], config: InjectorConfig) -> tuple[Wishes, list[str]]:
    """What the pod wants, where it says nothing what the installation has, and warnings. Raises PodRefused."""
    asked, warnings = read_annotations(annotations)
    mode = _interception_mode(asked)
    captured = mode != "NONE"
    interception = Interception(
        **{name.replace("-", "_"): asked[name].value for name in FROM_ANNOTATIONS if name in asked},
        outbound_port=config.sidecar.proxy_port,
        tproxy=mode == "TPROXY",
    )
    resources, more = _resources(asked, config)
    wishes = Wishes(
        captured=captured,
        interception=interception,
        image=_image(asked, config),
        resources=resources,
        log_level=_log_level(asked, config, warnings),
        rewrite_probes=_flag(asked, "rewrite-probes", default=True),
        native=_flag(asked, "native-sidecar", default=config.native_sidecars),
        hold=_flag(asked, "hold-application", default=True),
        user_volumes=_objects(asked, "user-volume"),
        user_mounts=_objects(asked, "user-volume-mount"),
        opaque_ports=_opaque_ports(asked),
        profile=_profile(asked, config),
        mode=_mode(asked, config),
        drain_seconds=_drain_seconds(asked),
    )
    return wishes, list(map(one_line, [*warnings, *more, *_contradictions(asked, wishes)]))


def _interception_mode(asked: Mapping[str, Asked]) -> str:
    one = asked.get("interception-mode")
    mode = one.value.upper() if one else "REDIRECT"
    if mode not in ("REDIRECT", "TPROXY", "NONE"):
        raise _refused(one, "there are REDIRECT, TPROXY and NONE")
    return mode


def _image(asked: Mapping[str, Asked], config: InjectorConfig) -> str:
    one = asked.get("proxy-image")
    if one is None:
        return config.sidecar.image
    if one.value.split() != [one.value]:
        raise _refused(one, "it is no image; write NAME:TAG or NAME@DIGEST")
    if one.value.rpartition("/")[2].startswith(_ENVOY):
        raise _refused(one, "it is Istio's own sidecar, in which there is none of ours; leave the annotation out")
    return one.value


def _resources(asked: Mapping[str, Asked], config: InjectorConfig) -> tuple[Object, list[str]]:
    requests, limits = {}, {}
    warnings = []
    for kind in ("cpu", "memory"):
        request, limit = asked.get(f"proxy-{kind}"), asked.get(f"proxy-{kind}-limit")
        requests[kind] = _quantity(request, getattr(config.sidecar, f"{kind}_request"))
        limits[kind] = _quantity(limit, getattr(config.sidecar, f"{kind}_limit"))
        if _amount(requests[kind]) <= _amount(limits[kind]):
            continue
        if request is not None and limit is not None:
            raise _refused(request, f"it is more than {limit.key} ({limit.value!r}), which Kubernetes refuses")
        # Who says one of the two means it; the other follows.
        if request is not None:
            limits[kind] = requests[kind]
            warnings.append(f"{request.key} is more than the usual limit, which becomes {requests[kind]} too")
        else:
            requests[kind] = limits[kind]
    return {"requests": requests, "limits": limits}, warnings


def _quantity(one: Asked | None, default: str) -> str:
    if one is None:
        return default
    if quantity(one.value) is None:
        raise _refused(one, "it is no quantity of Kubernetes such as 100m or 128Mi")
    return one.value


def _amount(text: str) -> Any:
    return quantity(text)


def _log_level(asked: Mapping[str, Asked], config: InjectorConfig, warnings: list[str]) -> str:
    one = asked.get("log-level")
    if one is None:
        return config.log_level
    # Istio's may go on with levels for parts of Envoy: `info,misc:error`.
    first = one.value.partition(",")[0].lower()
    if first not in _LEVELS:
        raise _refused(one, f"there are {', '.join(LOG_LEVELS)}")
    if _LEVELS[first] != one.value.lower():
        warnings.append(f"{one.key}: {one.value[:40]!r} becomes {_LEVELS[first]}")
    return _LEVELS[first]


def _flag(asked: Mapping[str, Asked], name: str, *, default: bool) -> bool:
    one = asked.get(name)
    if one is None:
        return default
    word = one.value.lower()
    if word not in _YES and word not in _NO:
        raise _refused(one, 'write "true" or "false"')
    return word in _YES


def _objects(asked: Mapping[str, Asked], name: str) -> tuple[Object, ...]:
    """Volumes or mounts: a JSON list of objects that have names, or a JSON object of such by name."""
    one = asked.get(name)
    if one is None:
        return ()
    try:
        value = json.loads(one.value)
    except (ValueError, RecursionError):
        raise _refused(one, "it is no JSON") from None
    if isinstance(value, dict) and all(isinstance(item, dict) for item in value.values()):
        value = [{"name": key, **item} for key, item in value.items()]
    if not isinstance(value, list) or not all(isinstance(item, dict) and _named(item) for item in value):
        raise _refused(one, 'write a JSON list such as [{"name": "cache", "emptyDir": {}}]')
    return tuple(value)


def _named(item: Object) -> bool:
    return isinstance(item.get("name"), str) and item["name"] != ""


def _opaque_ports(asked: Mapping[str, Asked]) -> str:
    one = asked.get("opaque-ports")
    if one is None:
        return ""
    ports = [port.strip() for port in one.value.split(",") if port.strip()]
    if not all(port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535 for port in ports):
        raise _refused(one, "write ports such as 3306,9418")
    return ",".join(ports)


def _profile(asked: Mapping[str, Asked], config: InjectorConfig) -> str:
    one = asked.get("profile")
    if one is None:
        return config.profile
    profiles = [name.strip() for name in one.value.split(",")]
    if not set(profiles) <= set(PROFILES) or len(set(profiles)) < len(profiles):
        raise _refused(one, f"write one or several of {', '.join(PROFILES)}, each once")
    return ",".join(profiles)


def _mode(asked: Mapping[str, Asked], config: InjectorConfig) -> MTLSMode:
    one = asked.get("mtls-mode")
    if one is None:
        return config.mtls_mode
    try:
        return MTLSMode(one.value.upper())
    except ValueError:
        raise _refused(one, f"there are {', '.join(mode.value for mode in MTLSMode)}") from None


def _drain_seconds(asked: Mapping[str, Asked]) -> float | None:
    one = asked.get("drain-seconds")
    if one is None:
        return None
    try:
        seconds = float(one.value.removesuffix("s"))
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= _LONGEST_DRAIN:  # not so for NaN either
        raise _refused(one, "write seconds, from 0 to a day")
    return seconds


def _contradictions(asked: Mapping[str, Asked], wishes: Wishes) -> list[str]:
    """What can be done as it stands, and is hardly meant."""
    found = []
    for way in ("inbound-ports", "outbound-ports", "outbound-cidrs"):
        include, exclude = asked.get(f"include-{way}"), asked.get(f"exclude-{way}")
        if include and exclude and (both := _entries(include) & _entries(exclude)):
            found.append(f"{include.key} and {exclude.key} both have {', '.join(sorted(both))[:80]}; it is excluded")
    if not wishes.captured:
        idle = [asked[name].key for name in FROM_ANNOTATIONS if name in asked]
        if idle:
            found.append(f"{asked['interception-mode'].key} is NONE, so {', '.join(idle)} do nothing")
    if not wishes.native and "hold-application" in asked and not wishes.hold:
        found.append(f"{asked['hold-application'].key}: the application may dial before the sidecar runs, and fail")
    return found


def _entries(one: Asked) -> set[str]:
    return {entry.strip() for entry in one.value.split(",")} - {"", "*"}


def _refused(one: Asked | None, why: str) -> PodRefused:
    key, value = (one.key, one.value) if one else ("", "")
    return PodRefused(f"{key}: {value[:60]!r}: {why}")
