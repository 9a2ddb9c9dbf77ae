"""The chart: its values without Helm, and what Helm makes of them where it is at hand (QBITEL_HELM, or on PATH)."""

from __future__ import annotations

import copy
import importlib.metadata
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from injector.config import LOG_LEVELS, PULL_POLICIES
from injector.webhook_configuration import IstioSidecarInjector
from mesh import names
from mesh.modes import MTLSMode
from pqtls import PROFILES
from tests.certmgr.kubernetes.documented import documented
from tests.deploy.installation import (
    CHART,
    CLASSIC,
    CURRENT,
    DEPLOY,
    PROJECT,
    arguments,
    by_identity,
    containers,
    helm,
    manifests,
    pods,
    refused,
    rendered,
)
from tests.deploy.test_arguments import parsed
from tests.support.kubernetes_schema import problems_of

VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
TEMPLATES = "\n".join(path.read_text() for path in sorted((CHART / "templates").iterdir()))
# What users fill with Kubernetes' own objects: the schema leaves them to the API server.
FREE = {"scheduling.nodeSelector", "scheduling.affinity", "monitoring.podMonitor.labels"}


def faults(values: Any) -> list[str]:
    return [each.message for each in jsonschema.Draft7Validator(SCHEMA).iter_errors(values)]


def maps(values: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every map of the values that the schema closes, with its path."""
    if isinstance(values, dict) and path not in FREE:
        yield path, values
        for key, value in values.items():
            yield from maps(value, f"{path}.{key}".removeprefix("."))


def leaves(values: Any, path: str = "") -> Iterator[str]:
    if isinstance(values, dict) and values and path not in FREE:
        for key, value in values.items():
            yield from leaves(value, f"{path}.{key}".removeprefix("."))
    else:
        yield path


# Values


def test_the_schema_is_one_and_takes_the_chart_s_own_values() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    assert faults(VALUES) == []
    assert faults({}) == []


@pytest.mark.parametrize("path", [path for path, _ in maps(VALUES)])
def test_a_key_that_does_not_exist_is_refused_wherever_it_stands(path: str) -> None:
    values = copy.deepcopy(VALUES)
    dict(maps(values))[path]["misspelt"] = True
    assert faults(values)


@pytest.mark.parametrize("path", list(leaves(VALUES)))
def test_a_value_of_another_type_is_refused(path: str) -> None:
    values = copy.deepcopy(VALUES)
    *way, last = path.split(".")
    place = values
    for key in way:
        place = place[key]
    place[last] = [[]] if not isinstance(place[last], list) else "text"
    assert faults(values)


@pytest.mark.parametrize(
    "values",
    [
        {"mtlsMode": "strict"},
        {"profile": "kyber"},
        {"trustDomain": "Example.org"},
        {"trustDomain": ""},
        {"logLevel": "trace"},
        {"kubernetesVersion": "latest"},
        {"mesh": {"cidrs": ["10.0.0.0"]}},
        {"mesh": {"mode": "strict"}},
        {"authority": {"certificateHours": 0}},
        {"images": {"control": {"repository": "a b"}}},
        {"images": {"control": {"repository": "a", "digest": "sha256:1"}}},
        {"images": {"sidecar": {"repository": "a", "pullPolicy": "always"}}},
        {"sidecar": {"resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "1", "memory": "1Gi"}}}},
        {"certmgr": {"service": {"clusterIP": "None"}}},
        {"injector": {"excludedNamespaces": ["Not_A_Name"]}},
    ],
    ids=json.dumps,
)
def test_a_value_that_would_break_the_installation_is_refused_before_it_is_made(values: Any) -> None:
    assert faults(values)


def test_what_the_programs_know_by_name_the_schema_knows_too() -> None:
    """A profile or mode that is added to the programs must be added here."""
    definitions, properties = SCHEMA["definitions"], SCHEMA["properties"]
    assert set(definitions["profile"]["enum"]) == set(PROFILES)
    assert set(definitions["logLevel"]["enum"]) == set(LOG_LEVELS)
    assert set(definitions["image"]["properties"]["pullPolicy"]["enum"]) == set(PULL_POLICIES)
    assert set(properties["mtlsMode"]["enum"]) == {mode.value for mode in MTLSMode}


def test_each_value_is_explained_where_it_stands() -> None:
    """A comment above it or beside it, or above a map that it is in."""
    around: list[tuple[int, bool]] = []  # the maps around a line: their indentation, and whether they are explained
    comment = False
    for line in (CHART / "values.yaml").read_text().splitlines():
        words = line.strip()
        if words and not words.startswith("#"):
            indentation = len(line) - len(line.lstrip())
            around = [each for each in around if each[0] < indentation]
            explained = comment or " #" in line or any(told for _, told in around)
            assert explained or words.endswith(":"), line
            around.append((indentation, explained))
        comment = words.startswith("#")


@pytest.mark.parametrize("path", list(leaves(VALUES)))
def test_each_value_is_used_by_a_template(path: str) -> None:
    *_, last = path.split(".")
    whole = {"resources", "images", "podMonitor"}  # given to a template as one
    assert re.search(rf"\.{last}\b", TEMPLATES) or whole & set(path.split("."))


def test_the_chart_and_what_it_installs_have_the_version_of_this_project() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == importlib.metadata.version("qbitel-mesh")


def test_where_helm_is_missing_make_manifests_says_so_and_changes_nothing(tmp_path: Path) -> None:
    before = {name: (DEPLOY / name).read_bytes() for name in (CURRENT, CLASSIC)}
    environment = {"PATH": "/usr/bin:/bin", "HELM": str(tmp_path / "helm")}
    outcome = subprocess.run(
        ["sh", str(DEPLOY / "render")], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert outcome.returncode == 2
    assert f"there is no {tmp_path}/helm here; install Helm 3" in outcome.stderr
    assert {name: (DEPLOY / name).read_bytes() for name in (CURRENT, CLASSIC)} == before


# With Helm


def test_helm_lint_finds_nothing() -> None:
    outcome = helm("lint", "--strict", str(CHART))
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


@pytest.mark.parametrize(("name", "version"), [(CURRENT, "1.33.0"), (CLASSIC, "1.28.0")])
def test_the_plain_manifests_are_what_the_chart_renders(name: str, version: str) -> None:
    assert by_identity(rendered("--set", "namespace.create=true", version=version)) == by_identity(manifests(name))


def test_the_chart_alone_makes_no_namespace() -> None:
    """Helm's --create-namespace does, and an object of the chart would be in its way."""
    assert "Namespace" not in {each["kind"] for each in rendered()}


def test_native_sidecars_are_given_to_clusters_that_know_them() -> None:
    for version, given in (("1.28.9", "1.28"), ("1.29.0", "1.29"), ("1.35.2", "1.35")):
        assert f"--kubernetes-version={given}" in arguments(rendered(version=version), "injector")
    told = arguments(rendered("--set-string", "kubernetesVersion=1.30"), "injector")
    assert "--kubernetes-version=1.30" in told
    assert "1.20" in refused("--kube-version", "1.19.0")


def test_the_oldest_cluster_gets_its_own_version_of_disruption_budgets() -> None:
    for version, expected in (("1.20.2", "policy/v1beta1"), ("1.21.0", "policy/v1")):
        kinds = {each["apiVersion"] for each in rendered(version=version) if each["kind"] == "PodDisruptionBudget"}
        assert kinds == {expected}


def test_another_namespace_is_another_everywhere() -> None:
    found = rendered("--set", "namespace.create=true", namespace="mesh-control")
    webhook = by_identity(found)["MutatingWebhookConfiguration", names.WEBHOOK_NAME]
    assert webhook == IstioSidecarInjector("mesh-control").create_webhook_configuration()
    assert names.CONTROL_NAMESPACE not in json.dumps([each for each in found if each is not webhook])
    for container in containers(found):
        parsed(container["args"])
    assert parsed(arguments(found, "injector")).control_namespace == "mesh-control"
    assert str(parsed(arguments(found, "injector")).authority) == "qbitel-certmgr.mesh-control.svc:15012"


def test_without_dns_pods_are_told_an_address() -> None:
    assert "give certmgr.service.clusterIP" in refused("--set", "clusterDNS=false")
    for address, authority in (("10.96.0.50", "10.96.0.50:15012"), ("fd00::50", "[fd00::50]:15012")):
        found = rendered("--set", "clusterDNS=false", "--set", f"certmgr.service.clusterIP={address}")
        assert by_identity(found)["Service", names.AUTHORITY_SERVICE]["spec"]["clusterIP"] == address
        assert f"--authority={authority}" in arguments(found, "injector")
        parsed(arguments(found, "injector"))


def test_images_are_taken_from_where_the_values_say_by_tag_or_by_digest() -> None:
    digest = "sha256:" + "a" * 64
    found = rendered(
        *("--set", "images.control.repository=registry.example:5000/qbitel/control", "--set", "images.control.tag=1.2"),
        *("--set", "images.control.pullPolicy=Always", "--set", "images.pullSecrets={registry}"),
        *("--set", f"images.sidecar.digest={digest}", "--set", "images.sidecar.pullPolicy=Never"),
    )
    for container in containers(found):
        assert container["image"] == "registry.example:5000/qbitel/control:1.2"
        assert container["imagePullPolicy"] == "Always"
    for _, template in pods(found):
        assert template["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    options = parsed(arguments(found, "injector"))
    assert (options.image, options.pull_policy) == (f"qbitel/quantum-sidecar@{digest}", "Never")


def test_what_pods_are_given_is_what_the_values_say() -> None:
    found = rendered(
        *("--set", "trustDomain=example.org,mtlsMode=PERMISSIVE,profile=cnsa2,sidecar.logLevel=debug"),
        *("--set", "sidecar.resources.requests.cpu=50m,sidecar.resources.limits.memory=1Gi,logLevel=warning"),
        *("--set", "certmgr.extraProfiles={qbitel,cnsa2},mesh.cidrs={10.0.0.0/8,fd00::/8},mesh.mode=require"),
        *("--set", "authority.certificateHours=2,rootNamespace=policies"),
        *("--set-string", r"authority.subject=CN=Mine\,O=Me"),
    )
    options = {each: parsed(arguments(found, each)) for each in ("found", "certmgr", "injector", "discovery")}
    injector = options["injector"]
    assert (injector.trust_domain, injector.mtls_mode, injector.profile) == ("example.org", "PERMISSIVE", "cnsa2")
    assert (injector.cpu_request, injector.memory_limit, injector.proxy_log_level) == ("50m", "1Gi", "debug")
    assert injector.mesh == []  # discovery brings it, with its mode
    assert options["certmgr"].profile == ["cnsa2,qbitel"]
    assert (options["found"].trust_domain, options["found"].leaf_hours) == ("example.org", 2)
    assert options["found"].subject == "CN=Mine,O=Me"
    assert {options[each].log_level for each in ("certmgr", "injector", "discovery")} == {"warning"}
    assert {options[each].root_namespace for each in ("injector", "discovery")} == {"policies"}
    words = arguments(found, "discovery")
    assert [word for word in words if word.startswith("--mesh=")] == ["--mesh=10.0.0.0/8", "--mesh=fd00::/8"]
    assert "--mesh-mode=require" in words


def test_without_discovery_pods_wait_for_no_policies_and_the_injector_names_the_networks() -> None:
    found = rendered("--set", "discovery.enabled=false,mesh.cidrs={10.0.0.0/8}")
    assert not [each for each in found if each["metadata"]["name"] == names.DISCOVERY_SERVICE]
    options = parsed(arguments(found, "injector"))
    assert (options.discovery, options.mesh) == (False, ["10.0.0.0/8"])


def test_an_authority_of_one_s_own_is_not_founded_over() -> None:
    found = rendered("--set", "authority.create=false")
    assert not [each for _, each in pods(found) if "initContainers" in each["spec"]]


def test_namespaces_are_excluded_and_secrets_mode_is_granted_only_where_that_is_asked_for() -> None:
    found = rendered("--set", "injector.excludedNamespaces={payroll},certmgr.serviceSecrets=true")
    for webhook in by_identity(found)["MutatingWebhookConfiguration", names.WEBHOOK_NAME]["webhooks"]:
        assert "payroll" in webhook["namespaceSelector"]["matchExpressions"][1]["values"]
    assert parsed(arguments(found, "injector")).exclude_namespace == ["payroll"]
    assert parsed(arguments(found, "certmgr")).service_secrets is True
    for each in documented("secrets mode"):
        ours = by_identity(found)[each["kind"], each["metadata"]["name"]]
        assert {**ours, "metadata": each["metadata"]} == each


def test_what_is_switched_off_is_not_there_and_what_is_switched_on_is() -> None:
    kinds = {"PodDisruptionBudget": "podDisruptionBudget.enabled=false", "NetworkPolicy": "networkPolicy.enabled=false"}
    kinds["ResourceQuota"] = "scheduling.priorityClassName="
    for kind, flag in kinds.items():
        assert kind in {each["kind"] for each in rendered()}
        assert kind not in {each["kind"] for each in rendered("--set", flag)}
    found = rendered("--set", "monitoring.podMonitor.enabled=true,monitoring.podMonitor.labels.release=prometheus")
    monitors = [each for each in found if each["kind"] == "PodMonitor"]
    assert [each["metadata"]["labels"]["release"] for each in monitors] == ["prometheus", "prometheus"]
    # By the names of ports: the control plane's, and that which the injector gives to sidecars.
    assert [each["spec"]["podMetricsEndpoints"][0]["port"] for each in monitors] == ["metrics", "qbitel-metrics"]
    assert "qbitel-metrics" in (PROJECT / "injector" / "containers.py").read_text()


def test_prometheus_is_let_in_where_the_values_say_who_it_is(tmp_path: Path) -> None:
    peers = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    values = tmp_path / "values.yaml"
    values.write_text(json.dumps({"networkPolicy": {"metricsFrom": peers}}))
    policy = by_identity(rendered("--values", str(values)))["NetworkPolicy", "qbitel-metrics"]
    assert problems_of(policy) == []
    assert policy["spec"]["ingress"] == [{"from": peers, "ports": [{"protocol": "TCP", "port": names.METRICS_PORT}]}]


def test_pods_are_placed_where_the_values_say(tmp_path: Path) -> None:
    scheduling = {
        "nodeSelector": {"pool": "control"},
        "tolerations": [{"key": "control", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
        "priorityClassName": "ours",
    }
    values = tmp_path / "values.yaml"
    values.write_text(json.dumps({"scheduling": scheduling}))
    for each in (found := rendered("--values", str(values))):
        assert problems_of(each) == []
    for _, template in pods(found):
        spec = template["spec"]
        assert spec["nodeSelector"]["pool"] == "control"
        assert {key: spec[key] for key in ("tolerations", "affinity", "priorityClassName")} == {
            key: scheduling[key] for key in ("tolerations", "affinity", "priorityClassName")
        }


def test_helm_refuses_a_value_that_does_not_exist() -> None:
    assert "mtlsmode" in refused("--set", "mtlsmode=STRICT")
