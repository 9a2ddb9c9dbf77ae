"""The two containers that a pod is given."""

from __future__ import annotations

from typing import Any

import pytest

from cli import proxy as proxy_command
from injector.config import SidecarConfig
from injector.containers import workload_name
from mesh import names
from mesh.modes import MTLSMode
from tests.injector.rig import CLASSIC, annotated, containers, flags, inject, pod, sidecar


@pytest.fixture
def rules() -> dict[str, Any]:
    found: dict[str, Any] = containers(inject(pod()).pod)["qbitel-init"]
    return found


def test_the_sidecar_has_no_privilege_at_all() -> None:
    assert sidecar(pod())["securityContext"] == {
        "runAsUser": 2102,
        "runAsGroup": 2102,
        "runAsNonRoot": True,
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "seccompProfile": {"type": "RuntimeDefault"},
        "capabilities": {"drop": ["ALL"]},
    }


def test_the_rules_are_made_with_two_capabilities_and_nothing_else(rules: dict[str, Any]) -> None:
    context = rules["securityContext"]

    assert context["capabilities"] == {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]}
    assert (context["privileged"], context["allowPrivilegeEscalation"]) == (False, False)
    assert context["readOnlyRootFilesystem"]


def test_the_rules_get_no_token_and_no_keys(rules: dict[str, Any]) -> None:
    assert "volumeMounts" not in rules


@pytest.mark.parametrize("name", ["qbitel-init", "qbitel-proxy"])
def test_both_have_requests_and_limits_as_quotas_demand(name: str) -> None:
    resources = containers(inject(pod()).pod)[name]["resources"]

    assert {(kind, what) for kind, amounts in resources.items() for what in amounts} == {
        (kind, what) for kind in ("requests", "limits") for what in ("cpu", "memory")
    }


@pytest.mark.parametrize(
    ("value", "settings"),
    [
        (pod(), {}),
        (pod(metadata={"name": "web", "labels": {"app": "web", "app.kubernetes.io/version": "v1"}}), {}),
        (annotated(profile="qbitel,compat", opaque_ports="3306", drain_seconds="5", log_level="debug"), {}),
        (annotated(interception_mode="NONE", mtls_mode="disable"), CLASSIC),
        (pod(), {"mesh_cidrs": ("10.0.0.0/8", "fd00::/8"), "mtls_mode": MTLSMode.PERMISSIVE}),
        (pod(), {"sidecar": SidecarConfig(proxy_port=16001, metrics_port=16090)}),
        (pod(), {"sidecar": SidecarConfig(enable_metrics=False)}),
    ],
)
def test_the_sidecar_s_own_command_line_takes_its_arguments(value: dict[str, Any], settings: dict[str, Any]) -> None:
    container = sidecar(value, **settings)
    command, first, *words = [*container["command"], *container["args"]]

    config = proxy_command._config(proxy_command._parser().parse_args(words))

    assert (command, first) == ("qbitel", "proxy")
    assert config.enrolment is not None
    assert str(config.enrolment.roots.roots.parent) == names.ROOTS_FOLDER
    assert str(config.enrolment.token) == names.TOKEN_FILE


def test_what_the_pod_is_called_and_labelled_is_told() -> None:
    container = sidecar(pod(metadata={"name": "web-1", "labels": {"app": "web", "tier": ""}}))

    assert flags(container)["--workload-labels"] == "app=web,tier="
    assert {"name": "QBITEL_WORKLOAD_NAME", "value": "web-1"} in container["env"]


@pytest.mark.parametrize(
    ("metadata", "name"),
    [
        ({"name": "web"}, "web"),
        ({"generateName": "web-"}, "web"),
        ({}, ""),
        (
            {
                "generateName": "web-5d8f-",
                "labels": {"pod-template-hash": "5d8f"},
                "ownerReferences": [{"kind": "ReplicaSet", "name": "web-5d8f", "controller": True}],
            },
            "web",
        ),
        ({"generateName": "db-", "ownerReferences": [{"kind": "StatefulSet", "name": "db", "controller": True}]}, "db"),
        ({"name": "web", "ownerReferences": [{"name": "somebody"}]}, "web"),
    ],
)
def test_a_pod_is_one_of_its_workload(metadata: dict[str, Any], name: str) -> None:
    assert workload_name(pod(metadata=metadata)) == name


@pytest.mark.parametrize(("grace", "drain"), [(6, "5"), (0, "0"), (-1, "0"), (30, None), (600, None), (None, None)])
def test_a_pod_with_little_grace_has_a_sidecar_that_drains_within_it(grace: int | None, drain: str | None) -> None:
    assert flags(sidecar(pod(terminationGracePeriodSeconds=grace))).get("--drain-seconds") == drain


def test_the_drain_that_was_asked_for_is_the_drain() -> None:
    given = annotated(drain_seconds="7")
    given["spec"]["terminationGracePeriodSeconds"] = 6

    assert flags(sidecar(given))["--drain-seconds"] == "7"


def test_a_native_sidecar_is_waited_for_and_a_classic_one_waits_in_its_hooks() -> None:
    native, classic = sidecar(pod()), sidecar(pod(), **CLASSIC)

    assert (native["restartPolicy"], native["startupProbe"]["httpGet"]["port"]) == ("Always", names.HEALTH_PORT)
    assert "lifecycle" not in native
    assert "restartPolicy" not in classic
    assert classic["lifecycle"]["postStart"]["exec"]["command"][:3] == ["qbitel", "wait", "--ready"]
    assert classic["lifecycle"]["preStop"]["exec"]["command"] == ["qbitel", "wait", "--drained"]


def test_without_metrics_for_others_no_port_is_announced_for_them() -> None:
    injected = inject(pod(), sidecar=SidecarConfig(enable_metrics=False)).pod
    container = containers(injected)["qbitel-proxy"]

    assert [port["name"] for port in container["ports"]] == ["qbitel-health"]
    assert flags(container)["--metrics"] == "127.0.0.1:15090"
    assert not [key for key in injected["metadata"]["annotations"] if key.startswith("prometheus.io/")]


def test_by_tproxy_the_sidecar_is_root_for_as_long_as_it_takes_to_become_its_user() -> None:
    injected = inject(annotated(interception_mode="tproxy")).pod
    container = containers(injected)["qbitel-proxy"]

    assert container["command"][0] == "setpriv"
    assert container["command"][-2:] == ["--", "qbitel"]
    assert [container["command"][container["command"].index(flag) + 1] for flag in ("--reuid", "--regid")] == [
        "2102"
    ] * 2
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["NET_ADMIN", "SETGID", "SETUID"]}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert flags(container)["--interception-mode"] == "TPROXY"
    assert "tproxy=True" in containers(injected)["qbitel-init"]["command"][-1]


def test_without_tproxy_the_sidecar_has_no_capability_at_all() -> None:
    container = sidecar(pod())

    assert container["command"] == ["qbitel"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert "--interception-mode" not in flags(container)
