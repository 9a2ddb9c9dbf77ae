"""Which mutual-TLS mode holds: port before workload before namespace before mesh, and the oldest of several."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.metadata import Metadata
from mesh.modes import MTLSMode
from mesh.peer_authentication import EffectiveMode, PeerAuthentication, effective_mode
from mesh.resources import ResourceSet
from mesh.selectors import Selector, Workload
from tests.support.policies import document, faults, resources, told

WEB = Workload("shop", {"app": "web"}, "web")


def made(
    name: str,
    mode: str | None = None,
    *,
    namespace: str = "shop",
    app: str | None = None,
    ports: dict[str, str] | None = None,
    created: str = "",
) -> str:
    spec: dict[str, Any] = {}
    if mode is not None:
        spec["mtls"] = {"mode": mode}
    if app is not None:
        spec["selector"] = {"matchLabels": {"app": app}}
    if ports is not None:
        spec["portLevelMtls"] = {port: {"mode": each} for port, each in ports.items()}
    more = {"creationTimestamp": created} if created else {}
    return document("PeerAuthentication", spec, name=name, namespace=namespace, **more)


def mode_of(*texts: str, port: int = 80, workload: Workload = WEB) -> EffectiveMode:
    return effective_mode(resources("---\n".join(texts)), workload, port)


MESH = made("default", "STRICT", namespace="istio-system")
NAMESPACE = made("default", "DISABLE")
WORKLOAD = made("web", "PERMISSIVE", app="web", ports={"80": "STRICT", "81": "UNSET", "82": "DISABLE"})


@pytest.mark.parametrize(
    ("texts", "port", "mode", "level", "decided_by"),
    [
        ([], 80, "PERMISSIVE", "default", "the default: no PeerAuthentication sets a mode"),
        ([MESH], 80, "STRICT", "mesh", "PeerAuthentication istio-system/default"),
        ([MESH, NAMESPACE], 80, "DISABLE", "namespace", "PeerAuthentication shop/default"),
        ([MESH, NAMESPACE, WORKLOAD], 80, "STRICT", "port", "PeerAuthentication shop/web, port 80"),
        ([MESH, NAMESPACE, WORKLOAD], 81, "PERMISSIVE", "workload", "PeerAuthentication shop/web"),
        ([MESH, NAMESPACE, WORKLOAD], 82, "DISABLE", "port", "PeerAuthentication shop/web, port 82"),
        ([MESH, NAMESPACE, WORKLOAD], 83, "PERMISSIVE", "workload", "PeerAuthentication shop/web"),
        ([MESH, made("default", "UNSET")], 80, "STRICT", "mesh", "PeerAuthentication istio-system/default"),
        ([MESH, made("default")], 80, "STRICT", "mesh", "PeerAuthentication istio-system/default"),
        ([NAMESPACE, made("w", "UNSET", app="web")], 80, "DISABLE", "namespace", "PeerAuthentication shop/default"),
        (
            [NAMESPACE, made("w", app="web", ports={"80": "STRICT"})],
            81,
            "DISABLE",
            "namespace",
            "PeerAuthentication shop/default",
        ),
        (
            [made("default", "UNSET", namespace="istio-system")],
            80,
            "PERMISSIVE",
            "default",
            "the default: no PeerAuthentication sets a mode",
        ),
        ([made("o", "STRICT", app="other")], 80, "PERMISSIVE", "default", None),
        ([made("o", "STRICT", namespace="other")], 80, "PERMISSIVE", "default", None),
        ([made("o", "STRICT", namespace="other", app="web")], 80, "PERMISSIVE", "default", None),
        # A selector in the root namespace: Istio reads it for no workload.
        ([made("o", "STRICT", namespace="istio-system", app="web")], 80, "PERMISSIVE", "default", None),
    ],
)
def test_the_narrowest_that_says_something_decides(
    texts: list[str], port: int, mode: str, level: str, decided_by: str | None
) -> None:
    found = mode_of(*texts, port=port)

    assert (found.mode, found.level) == (MTLSMode(mode), level)
    assert decided_by is None or found.decided_by == decided_by


def test_who_has_another_default_says_so() -> None:
    assert effective_mode(ResourceSet(), WEB, 80, default=MTLSMode.STRICT).mode is MTLSMode.STRICT


def test_a_workload_in_the_root_namespace_has_the_mesh_s_mode() -> None:
    gateway = Workload("istio-system", {"app": "gateway"}, "gateway")

    assert mode_of(MESH, NAMESPACE, workload=gateway).level == "mesh"


@pytest.mark.parametrize(("namespace", "level"), [("istio-system", "mesh"), ("shop", "namespace")])
def test_of_two_the_oldest_counts_and_the_other_is_named(namespace: str, level: str) -> None:
    old = made("z-old", "STRICT", namespace=namespace, created="2025-01-01T00:00:00Z")
    young = made("a-young", "DISABLE", namespace=namespace, created="2026-01-01T00:00:00Z")
    unborn = made("0-unborn", "DISABLE", namespace=namespace)

    for order in ([old, young, unborn], [unborn, young, old]):
        found = mode_of(*order)
        assert (found.mode, found.level) == (MTLSMode.STRICT, level)
        assert [each.metadata.name for each in found.ignored] == ["a-young", "0-unborn"]


def test_an_older_one_that_is_unset_keeps_a_younger_one_from_counting() -> None:
    """Istio chooses first and asks for the mode afterwards."""
    old = made("old", "UNSET", created="2025-01-01T00:00:00Z")
    young = made("young", "STRICT", created="2026-01-01T00:00:00Z")

    assert mode_of(old, young).level == "default"


def test_two_with_different_selectors_may_both_fit_one_workload() -> None:
    both = Workload("shop", {"app": "web", "tier": "front"}, "web")
    by_app = made("by-app", "STRICT", app="web")
    by_tier = document(
        "PeerAuthentication",
        {"selector": {"matchLabels": {"tier": "front"}}, "mtls": {"mode": "DISABLE"}},
        name="by-tier",
        namespace="shop",
    )

    found = mode_of(by_tier, by_app, workload=both)
    assert found.decided_by == "PeerAuthentication shop/by-app"
    assert [each.metadata.name for each in found.ignored] == ["by-tier"]


def test_two_about_the_same_workloads_are_warned_of_once_they_are_read() -> None:
    found = resources("---\n".join([made("a", "STRICT"), made("b", "DISABLE"), made("c", "STRICT", app="web")]))

    assert told(found.problems, "warning") == [
        "spec.selector: is ignored: PeerAuthentication shop/a is about the same workloads and is older "
        "(or first by name)"
    ]
    assert found.problems[-1].resource == "PeerAuthentication shop/b"


def test_a_selector_in_the_root_namespace_is_warned_of() -> None:
    found = resources(made("a", "STRICT", namespace="istio-system", app="web"))

    assert told(found.problems, "warning") == [
        "spec.selector: in the root namespace has no effect: Istio takes it from a workload's own namespace alone"
    ]


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ({"mtls": {"mode": "strict"}}, "spec.mtls.mode: 'strict' is none of UNSET, STRICT, PERMISSIVE, DISABLE"),
        ({"mtls": "STRICT"}, "spec.mtls: 'STRICT' stands where a map is wanted"),
        ({"mtls": {"mod": "STRICT"}}, "spec.mtls.mod: is no field of this resource"),
        (
            {"portLevelMtls": {"80": {"mode": "STRICT"}}},
            "spec.portLevelMtls: needs a selector: ports are those of one workload",
        ),
        (
            {"selector": {"matchLabels": {"a": "b"}}, "portLevelMtls": {}},
            "spec.portLevelMtls: must not be empty",
        ),
        (
            {"selector": {"matchLabels": {"a": "b"}}, "portLevelMtls": {"0": {"mode": "STRICT"}}},
            "spec.portLevelMtls['0']: '0' is no port: 1 to 65535",
        ),
        (
            {"selector": {"matchLabels": {"a": "b"}}, "portLevelMtls": {"http": {"mode": "STRICT"}}},
            "spec.portLevelMtls.http: 'http' is no port: 1 to 65535",
        ),
        (
            {"selector": {"matchLabels": {"a": "b"}}, "portLevelMtls": {"80": {}, "080": {}}},
            "spec.portLevelMtls: names a port twice",
        ),
    ],
)
def test_what_is_written_wrongly_is_refused(spec: Any, fault: str) -> None:
    assert faults("PeerAuthentication", spec) == [fault]


def test_ports_may_be_written_as_numbers() -> None:
    (found,) = resources(
        """
        apiVersion: security.istio.io/v1beta1
        kind: PeerAuthentication
        metadata: {name: web, namespace: shop}
        spec:
          selector: {matchLabels: {app: web}}
          portLevelMtls:
            8080: {mode: DISABLE}
        """
    ).peer_authentications

    assert found.port_modes == {8080: MTLSMode.DISABLE}
    assert found.mode is None


_modes = st.none() | st.sampled_from(list(MTLSMode))
_policies = st.builds(
    PeerAuthentication,
    st.builds(
        Metadata,
        st.just("PeerAuthentication"),
        st.sampled_from(["shop", "istio-system", "other"]),
        st.sampled_from("abcdef"),
        created=st.sampled_from(["2025", "2026", "~"]),
    ),
    _modes,
    st.dictionaries(st.sampled_from([80, 81]), _modes, max_size=2),
    st.sampled_from([Selector({}), Selector({"app": "web"}), Selector({"app": "other"})]),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(_policies, max_size=8), st.sampled_from([80, 81, 82]))
def test_the_mode_is_that_of_a_plain_reading(policies: list[PeerAuthentication], port: int) -> None:
    def oldest(namespace: str, labels: dict[str, str]) -> PeerAuthentication | None:
        fitting = [
            each for each in policies if each.metadata.namespace == namespace and each.selector.match_labels == labels
        ]
        return min(fitting, key=lambda each: each.metadata.age, default=None)

    mesh, namespace, workload = oldest("istio-system", {}), oldest("shop", {}), oldest("shop", {"app": "web"})
    mode = MTLSMode.PERMISSIVE
    for level in (mesh, namespace, workload):
        if level is not None and level.mode is not None:
            mode = level.mode
    if workload is not None and workload.port_modes.get(port) is not None:
        mode = workload.port_modes[port] or mode

    found = effective_mode(ResourceSet(peer_authentications=tuple(policies)), WEB, port)
    assert found.mode is mode
    assert (found.policy is None) is (found.level == "default")
