"""PeerAuthentication: what the inbound side of workloads accepts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from mesh.building import checks
from mesh.building.metadata import SECURITY, match_labels, resource
from mesh.modes import MTLSMode

UNSET: Final = "UNSET"  # Istio's word for: as the level above says


def peer_authentication(
    name: str,
    namespace: str,
    mode: MTLSMode | str | None,
    *,
    selector: Mapping[str, str] | None = None,
    port_modes: Mapping[int, MTLSMode | str] | None = None,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return a PeerAuthentication for the workloads that `selector` names, or else for the namespace.

    `mode` is a MTLSMode or its name; None or "UNSET" leaves it to the level above. In Istio's root namespace and
    without a selector it is the mode of the whole mesh. `port_modes` maps ports of the workload, 1 to 65535, to modes
    and needs a selector: Istio refuses it elsewhere.
    """
    spec: dict[str, Any] = {}
    if selector is not None:
        spec["selector"] = match_labels("selector", selector)
    spec["mtls"] = {"mode": mode_name("mode", UNSET if mode is None else mode)}
    if port_modes is not None:
        spec["portLevelMtls"] = _port_level("port_modes", port_modes, with_selector=selector is not None)
    return resource(SECURITY, "PeerAuthentication", name, namespace, spec, labels=labels, annotations=annotations)


def mode_name(argument: str, mode: object) -> str:
    """The word for a mode in a manifest."""
    return checks.choice(
        argument, mode.value if isinstance(mode, MTLSMode) else mode, (*(known.value for known in MTLSMode), UNSET)
    )


def _port_level(argument: str, port_modes: object, *, with_selector: bool) -> dict[str, dict[str, str]]:
    if not isinstance(port_modes, Mapping) or not port_modes:
        raise checks.refused(argument, port_modes, "a dict from ports to modes, as in {8080: 'DISABLE'}")
    if not with_selector:
        raise ValueError(f"{argument}: the mode of a port is of some workloads' port; give their selector too")
    modes = {checks.port(argument, port): mode_name(f"{argument}[{port}]", mode) for port, mode in port_modes.items()}
    # The keys of a JSON object are strings.
    return {str(port): {"mode": mode} for port, mode in sorted(modes.items())}
