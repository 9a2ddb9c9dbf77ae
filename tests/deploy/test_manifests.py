"""The plain manifests: what Kubernetes, our own programs and an administrator's eye demand of them."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from control.discovery.istio_kinds import KINDS
from injector.webhook_configuration import SERVICE_PORT, IstioSidecarInjector
from mesh import names
from tests.certmgr.kubernetes.documented import documented
from tests.deploy.installation import CLASSIC, CURRENT, PROJECT, arguments, by_identity, containers, manifests, pods
from tests.support.kubernetes_schema import is_judged, problems_of

BOTH = pytest.mark.parametrize("name", [CURRENT, CLASSIC])


# What Kubernetes demands


@BOTH
def test_kubernetes_schema_has_nothing_against_any_object(name: str) -> None:
    for each in manifests(name):
        assert is_judged(each), each["kind"]
        assert problems_of(each) == []


@BOTH
def test_each_object_is_there_once_and_all_but_the_cluster_s_are_in_the_control_namespace(name: str) -> None:
    for kind, called in (found := by_identity(manifests(name))):
        expected = None if kind.startswith(("Cluster", "Mutating", "Namespace")) else names.CONTROL_NAMESPACE
        assert found[kind, called]["metadata"].get("namespace") == expected


def test_the_namespace_comes_first_and_the_webhook_last() -> None:
    """Applied in this order, no pod is asked for before what it needs is there, nor refused for want of an injector."""
    kinds = [each["kind"] for each in manifests()]
    assert (kinds[0], kinds[-1]) == ("Namespace", "MutatingWebhookConfiguration")


@BOTH
def test_pods_find_what_they_name(name: str) -> None:
    found = by_identity(manifests(name))
    for _, template in pods(manifests(name)):
        spec = template["spec"]
        assert ("ServiceAccount", spec["serviceAccountName"]) in found
        volumes = {each["name"] for each in spec.get("volumes", ())}
        for container in spec["containers"]:
            assert {each["name"] for each in container.get("volumeMounts", ())} <= volumes
            ports = {each["name"] for each in container["ports"]}
            assert {container[probe]["httpGet"]["port"] for probe in ("readinessProbe", "livenessProbe")} <= ports


@BOTH
def test_services_budgets_and_network_policies_select_the_pods_that_they_are_for(name: str) -> None:
    labels = {workload: template["metadata"]["labels"] for workload, template in pods(manifests(name))}
    everybody = set(labels)
    seen = set()
    for each in manifests(name):
        kind, spec = each["kind"], each.get("spec", {})
        if kind == "Service":
            selector = spec["selector"]
        elif kind in ("PodDisruptionBudget", "Deployment", "StatefulSet"):
            selector = spec["selector"]["matchLabels"]
        elif kind == "NetworkPolicy":
            selector = spec["podSelector"].get("matchLabels", {})
        else:
            continue
        chosen = {workload for workload, has in labels.items() if selector.items() <= has.items()}
        own = {each["metadata"]["name"]} & everybody
        assert chosen == (own or everybody), each["metadata"]["name"]
        seen.add((kind, each["metadata"]["name"]))
    assert {called for kind, called in seen if kind == "PodDisruptionBudget"} == everybody


@BOTH
def test_a_service_leads_to_a_port_that_its_pods_have(name: str) -> None:
    found = manifests(name)
    templates = dict(pods(found))
    for each in found:
        if each["kind"] == "Service":
            (container,) = templates[each["metadata"]["name"]]["spec"]["containers"]
            ports = {port["name"] for port in container["ports"]}
            assert {port["targetPort"] for port in each["spec"]["ports"]} <= ports


def test_what_is_served_to_others_is_let_in_and_nothing_else_is() -> None:
    """From anywhere, as every pod, API servers and kubelets ask for it; metrics are nobody's unless values say so."""
    let_in: dict[str, set[int]] = {workload: set() for workload, _ in pods(manifests())}
    denied = set()
    for each in manifests():
        if each["kind"] != "NetworkPolicy":
            continue
        selector = each["spec"]["podSelector"].get("matchLabels", {})
        for workload, template in pods(manifests()):
            if selector.items() <= template["metadata"]["labels"].items():
                denied.add(workload)
                for rule in each["spec"].get("ingress", ()):
                    assert "from" not in rule
                    let_in[workload] |= {port["port"] for port in rule["ports"]}
    assert denied == set(let_in)
    assert let_in == {
        names.AUTHORITY_SERVICE: {names.AUTHORITY_PORT, names.HEALTH_PORT},
        names.WEBHOOK_NAME: {9443, names.HEALTH_PORT},
        names.DISCOVERY_SERVICE: {names.HEALTH_PORT},
    }


# What an administrator demands


@BOTH
def test_every_container_is_what_the_restricted_pod_security_standard_allows(name: str) -> None:
    """kubernetes.io/docs/concepts/security/pod-security-standards, and a root file system that cannot be written."""
    found = manifests(name)
    for _, template in pods(found):
        spec = template["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == spec["securityContext"]["runAsGroup"] == names.SIDECAR_UID
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        kinds = {kind for volume in spec.get("volumes", ()) for kind in volume if kind != "name"}
        assert kinds <= {"configMap", "emptyDir", "projected", "secret", "downwardAPI"}
    for container in containers(found):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not [port for port in container.get("ports", ()) if "hostPort" in port]
    namespace = by_identity(found)["Namespace", names.CONTROL_NAMESPACE]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert namespace["metadata"]["labels"][names.NAMESPACE_LABEL] == "disabled"


@BOTH
def test_every_container_says_what_it_needs_and_what_it_may_have(name: str) -> None:
    for container in containers(manifests(name)):
        assert set(container["resources"]["requests"]) == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]


@BOTH
def test_everything_runs_twice_apart_from_each_other_and_a_drain_takes_one_at_a_time(name: str) -> None:
    found = by_identity(manifests(name))
    for workload, template in pods(manifests(name)):
        kind = "StatefulSet" if workload == names.AUTHORITY_SERVICE else "Deployment"
        assert found[kind, workload]["spec"]["replicas"] == 2
        assert found["PodDisruptionBudget", workload]["spec"]["maxUnavailable"] == 1
        spread = template["spec"]["topologySpreadConstraints"]
        assert [each["topologyKey"] for each in spread] == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
        for each in spread:
            assert each["labelSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()


@BOTH
def test_no_right_is_for_everything(name: str) -> None:
    for each in manifests(name):
        for rule in each.get("rules", ()):
            assert "nonResourceURLs" not in rule
            for key in ("apiGroups", "resources", "verbs", "resourceNames"):
                assert "*" not in rule.get(key, ())
            assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])


@BOTH
def test_only_the_authority_may_read_secrets_and_only_those_of_its_own_namespace(name: str) -> None:
    holders = [
        (each["kind"], each["metadata"]["name"], tuple(rule["verbs"]))
        for each in manifests(name)
        for rule in each.get("rules", ())
        if "secrets" in rule["resources"]
    ]
    assert holders == [
        ("Role", "qbitel-certmgr", ("get", "list", "watch", "create", "update", "delete")),
        ("Role", "qbitel-certmgr-webhook", ("patch",)),
    ]


@BOTH
def test_the_injector_has_no_rights_and_no_token(name: str) -> None:
    found = manifests(name)
    account = by_identity(found)["ServiceAccount", names.WEBHOOK_NAME]
    assert account["automountServiceAccountToken"] is False
    assert dict(pods(found))[names.WEBHOOK_NAME]["spec"]["automountServiceAccountToken"] is False
    bound = [subject["name"] for each in found for subject in each.get("subjects", ())]
    assert set(bound) == {names.AUTHORITY_SERVICE, names.DISCOVERY_SERVICE}


@BOTH
def test_every_image_is_named_with_the_version_of_this_project(name: str) -> None:
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    assert {each["image"] for each in containers(manifests(name))} == {f"qbitel/control:{version}"}
    assert f"--image=qbitel/quantum-sidecar:{version}" in arguments(manifests(name), "injector")


# What the rest of the project demands


def granted(objects: list[Any], wanted: set[tuple[str, str]]) -> dict[tuple[str, str], Any]:
    """Rules and bindings by kind and name, without labels."""
    return {
        identity: {key: value for key, value in each.items() if key in ("rules", "roleRef", "subjects")}
        for identity, each in by_identity(objects).items()
        if identity in wanted
    }


@BOTH
@pytest.mark.parametrize("marker", ["authority", "webhook", "discovery"])
def test_the_rights_are_those_that_are_documented(name: str, marker: str) -> None:
    """… which the tests of each program hold against what it asks for."""
    told = by_identity(documented(marker))
    assert granted(manifests(name), set(told)) == granted(documented(marker), set(told))


def test_nobody_is_given_rights_that_are_not_documented() -> None:
    told = {
        identity
        for marker in ("authority", "webhook", "discovery")
        for identity in by_identity(documented(marker))
        if "Role" in identity[0]
    }
    assert {identity for identity in by_identity(manifests()) if "Role" in identity[0]} == told


def test_discovery_may_read_the_kinds_that_it_follows_and_write_no_policy() -> None:
    role = by_identity(manifests())["ClusterRole", names.DISCOVERY_SERVICE]
    may = {(rule["apiGroups"][0], plural): rule for rule in role["rules"] for plural in rule["resources"]}
    istio = {key for key in may if key[0].endswith(".istio.io")}
    assert istio == {(kind.group, kind.plural) for kind in KINDS}
    assert all(may[key]["verbs"] == ["list", "watch"] for key in istio)
    definitions = may["apiextensions.k8s.io", "customresourcedefinitions"]["resourceNames"]
    assert sorted(definitions) == sorted(kind.crd for kind in KINDS)


@BOTH
def test_the_webhook_is_what_the_injector_prints(name: str) -> None:
    """… without a caBundle, which the authority writes into it."""
    own = IstioSidecarInjector().create_webhook_configuration()
    assert by_identity(manifests(name))["MutatingWebhookConfiguration", names.WEBHOOK_NAME] == own


@BOTH
def test_everything_is_called_what_the_programs_call_it(name: str) -> None:
    found = by_identity(manifests(name))
    assert found["Service", names.AUTHORITY_SERVICE]["spec"]["ports"][0]["port"] == names.AUTHORITY_PORT
    assert found["Service", names.WEBHOOK_NAME]["spec"]["ports"][0]["port"] == SERVICE_PORT
    for kind, called in (
        ("Namespace", names.CONTROL_NAMESPACE),
        ("StatefulSet", names.AUTHORITY_SERVICE),
        ("ServiceAccount", names.AUTHORITY_SERVICE),
        ("Deployment", names.WEBHOOK_NAME),
        ("Deployment", names.DISCOVERY_SERVICE),
        ("ServiceAccount", names.DISCOVERY_SERVICE),
    ):
        assert (kind, called) in found
    ports = {
        each["name"]: {port["name"]: port["containerPort"] for port in each["ports"]}
        for _, template in pods(manifests(name))
        for each in template["spec"]["containers"]
    }
    assert ports == {
        "certmgr": {"api": names.AUTHORITY_PORT, "metrics": names.METRICS_PORT, "health": names.HEALTH_PORT},
        "injector": {"webhook": 9443, "metrics": names.METRICS_PORT},
        "discovery": {"metrics": names.METRICS_PORT, "health": names.HEALTH_PORT},
    }


@BOTH
def test_the_injector_s_certificate_is_mounted_from_the_secret_that_the_authority_makes(name: str) -> None:
    spec = dict(pods(manifests(name)))[names.WEBHOOK_NAME]["spec"]
    (volume,) = spec["volumes"]
    secret = volume["secret"]
    assert (secret["secretName"], secret.get("optional", False)) == (names.WEBHOOK_SECRET, False)
    # The key: for the pod's group, and for nobody else.
    assert (secret["defaultMode"], spec["securityContext"]["fsGroup"]) == (0o440, names.SIDECAR_GID)
    (mount,) = spec["containers"][0]["volumeMounts"]
    assert "subPath" not in mount  # the kubelet would not bring a renewal
    given = arguments(manifests(name), "injector")
    assert f"--tls-cert={mount['mountPath']}/{names.CERTIFICATE_FILE}" in given
    assert f"--tls-key={mount['mountPath']}/{names.PRIVATE_KEY_FILE}" in given
    assert {each["key"] for each in secret["items"]} == {names.CERTIFICATE_FILE, names.PRIVATE_KEY_FILE}
