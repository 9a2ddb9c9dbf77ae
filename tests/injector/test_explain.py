"""What would happen to a pod, in words."""

from __future__ import annotations

from injector.explain import explain, refused
from tests.injector.rig import CLASSIC, annotated, inject, pod


def test_who_decided_what_is_added_and_what_is_captured_are_told() -> None:
    given = annotated(exclude_inbound_ports="22")
    given["spec"]["containers"][0]["livenessProbe"] = {"tcpSocket": {"port": 80}}

    lines = explain("pod/web", given, inject(given))

    assert lines[0] == "pod/web: gets a sidecar: its namespace has the label qbitel-injection=enabled"
    assert "  captured: inbound ports *; outbound networks *; not inbound ports 22" in lines
    assert "  adds init containers: qbitel-init, qbitel-proxy" in lines
    assert "  the sidecar answers /app-health/web/livez for the application" in lines
    assert "  asked for by qbitel.io/exclude-inbound-ports: 22" in lines


def test_a_classic_sidecar_and_an_override_are_told() -> None:
    given = pod(containers=[{"name": "web"}, {"name": "qbitel-proxy"}])

    lines = explain("pod/web", given, inject(given, **CLASSIC))

    assert any("classic sidecar (first container)" in line for line in lines)
    assert "  its own container qbitel-proxy is merged over ours" in lines


def test_without_capture_it_says_so() -> None:
    given = annotated(interception_mode="NONE")

    assert "  captured: nothing (interception-mode NONE)" in explain("pod/web", given, inject(given))


def test_a_pod_without_a_sidecar_has_its_reason_and_its_warnings() -> None:
    given = pod(hostNetwork=True)

    first, warning = explain("pod/web", given, inject(given))

    assert first.startswith("pod/web: gets no sidecar: it is in the host's network")
    assert warning.startswith("  warning: no sidecar")


def test_a_refusal_has_its_reason() -> None:
    assert refused("pod/web", "so it is") == ["pod/web: is refused: so it is"]
