"""Probes and hooks that the sidecar answers for the application."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from injector.probes import read_originals, restore_probes, rewrite_probes
from tests.injector.rig import containers, flags, inject, pod, sidecar


def probed(**fields: Any) -> dict[str, Any]:
    return pod(containers=[{"name": "web", "image": "x", "ports": [{"name": "http", "containerPort": 8080}], **fields}])


HANDLERS: dict[str, dict[str, Any]] = {
    "http": {"httpGet": {"path": "/ready", "port": 8080}},
    "https": {"httpGet": {"path": "/ready", "port": 8443, "scheme": "HTTPS"}},
    "named": {"httpGet": {"path": "/ready", "port": "http"}},
    "headers": {"httpGet": {"port": 80, "httpHeaders": [{"name": "Host", "value": "example.org"}]}},
    "tcp": {"tcpSocket": {"port": 5432}},
    "grpc": {"grpc": {"port": 9000, "service": "orders"}},
    "text": {"tcpSocket": {"port": "5432"}},
}
PORTS = {"http": 8080, "https": 8443, "named": 8080, "headers": 80, "tcp": 5432, "grpc": 9000, "text": 5432}


@pytest.mark.parametrize("kind", HANDLERS)
@pytest.mark.parametrize(
    ("field", "word"), [("livenessProbe", "livez"), ("readinessProbe", "readyz"), ("startupProbe", "startupz")]
)
def test_every_networked_probe_asks_the_sidecar_which_knows_the_original(kind: str, field: str, word: str) -> None:
    handler = HANDLERS[kind]
    given = probed(**{field: {**handler, "timeoutSeconds": 7, "periodSeconds": 3}})

    injected = containers(inject(given).pod)
    probe = injected["web"][field]

    assert (probe["timeoutSeconds"], probe["periodSeconds"]) == (7, 3)
    assert (probe["httpGet"]["path"], probe["httpGet"]["port"]) == (f"/app-health/web/{word}", 15021)
    assert probe["httpGet"].get("scheme", "HTTP") == "HTTP"
    assert read_originals(injected["qbitel-proxy"]) == {
        f"/app-health/web/{word}": {"handler": handler, "port": PORTS[kind], "timeoutSeconds": 7}
    }


@pytest.mark.parametrize("kind", HANDLERS)
def test_restoring_gives_back_each_probe(kind: str) -> None:
    given = probed(livenessProbe={"initialDelaySeconds": 1, **HANDLERS[kind], "periodSeconds": 3})
    rewritten = copy.deepcopy(given)
    originals, warnings = rewrite_probes(rewritten)

    restore_probes(rewritten, originals, tuple(originals))

    assert (rewritten, warnings) == (given, [])
    assert list(rewritten["spec"]["containers"][0]["livenessProbe"]) == list(
        given["spec"]["containers"][0]["livenessProbe"]
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"livenessProbe": {"exec": {"command": ["true"]}}},
        {"livenessProbe": {"httpGet": {"port": 80, "host": "192.0.2.1"}}},
        {"lifecycle": {"preStop": {"exec": {"command": ["true"]}}}},
        {"lifecycle": {"preStop": {"sleep": {"seconds": 1}}}},
        {"lifecycle": {"preStop": {"tcpSocket": {"port": 80}}}},
        {"livenessProbe": {}},
        {"livenessProbe": None},
        {"livenessProbe": {"httpGet": None}},
    ],
)
def test_what_needs_no_way_through_the_sidecar_stays(fields: dict[str, Any]) -> None:
    given = probed(**fields)
    before = copy.deepcopy(given)

    assert rewrite_probes(given) == ({}, [])
    assert given == before


@pytest.mark.parametrize("port", ["https", None, 0, 70000, True, "99999", {}, "٣"])
def test_a_probe_of_a_port_that_nobody_has_stays_and_is_told(port: Any) -> None:
    given = probed(livenessProbe={"tcpSocket": {"port": port}})

    originals, (warning,) = rewrite_probes(given)

    assert originals == {}
    assert warning.startswith("/app-health/web/livez: the port ")


def test_hooks_over_http_are_asked_through_the_sidecar() -> None:
    given = probed(lifecycle={"postStart": HANDLERS["http"], "preStop": HANDLERS["named"]})

    originals, _ = rewrite_probes(given)

    assert set(originals) == {"/app-lifecycle/web/poststart", "/app-lifecycle/web/prestop"}
    hook = given["spec"]["containers"][0]["lifecycle"]["preStop"]["httpGet"]
    assert hook == {"path": "/app-lifecycle/web/prestop", "port": 15021}


def test_an_init_container_is_asked_only_when_it_stays() -> None:
    probe = {"startupProbe": {"tcpSocket": {"port": 1}}}
    given = pod(initContainers=[{"name": "ends", **probe}, {"name": "stays", "restartPolicy": "Always", **probe}])

    assert list(rewrite_probes(given)[0]) == ["/app-health/stays/startupz"]


def test_nothing_in_the_wire_is_taken_for_a_variable_by_kubernetes() -> None:
    given = probed(livenessProbe={"httpGet": {"path": "/$(POD_NAME)/$$", "port": 80}})

    container = sidecar(given)

    (variable,) = [one for one in container["env"] if one["name"] == "QBITEL_APP_PROBES"]
    assert "$" not in variable["value"]
    assert read_originals(container)["/app-health/web/livez"]["handler"]["httpGet"]["path"] == "/$(POD_NAME)/$$"


@pytest.mark.parametrize("value", ["{", "[]", "1", "[" * 100_000])
def test_a_wire_that_cannot_be_read_is_empty(value: str) -> None:
    assert read_originals({"env": [{"name": "QBITEL_APP_PROBES", "value": value}]}) == {}


def test_probes_that_stay_by_annotation_are_not_on_the_wire() -> None:
    given = probed(livenessProbe=HANDLERS["tcp"])
    given["metadata"]["annotations"] = {"qbitel.io/rewrite-probes": "false"}

    injected = containers(inject(given).pod)

    assert injected["web"]["livenessProbe"] == HANDLERS["tcp"]
    assert read_originals(injected["qbitel-proxy"]) == {}
    assert "--mode" in flags(injected["qbitel-proxy"])
