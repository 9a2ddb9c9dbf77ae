"""Which limits of Istio's resources a sidecar that sees connections follows, and for which ports."""

from __future__ import annotations

import pytest

from mesh.building.local_rate_limit import local_rate_limit
from mesh.documents import to_yaml
from mesh.selectors import Workload
from proxy.policy.inbound_limits import connections_of, rates_of
from tests.support.policies import document, resources

WEB = Workload("foo", {"app": "web"}, "web")


def service(*, name: str = "web", ports=((80, 8080),), selector=None) -> str:
    return to_yaml(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": "foo"},
            "spec": {
                "selector": selector or {"app": "web"},
                "ports": [{"port": port, "targetPort": target} for port, target in ports],
            },
        }
    )


def rule(most: int | None = 7, host: str = "web", **policy) -> str:
    pool = {"connectionPool": {"tcp": {"maxConnections": most}}} if most is not None else {}
    return document("DestinationRule", {"host": host, "trafficPolicy": {**pool, **policy}}, name="rule")


def limits(*documents: str) -> list[tuple[int | None, int]]:
    return [(one.port, one.most) for one in connections_of(resources("---\n".join(documents)), WEB)]


def test_max_connections_of_a_service_that_we_stand_behind_holds_at_the_port_of_the_pod():
    assert limits(rule(), service()) == [(8080, 7)]


def test_a_port_with_settings_of_its_own_has_those_alone():
    own = {"portLevelSettings": [{"port": {"number": 81}, "connectionPool": {"tcp": {"maxConnections": 3}}}]}
    assert limits(rule(**own), service(ports=((80, 8080), (81, 8081)))) == [(8080, 7), (8081, 3)]


def test_a_port_whose_target_is_a_name_is_limited_wherever_it_is():
    assert limits(rule(), service(ports=((80, "http"),))) == [(None, 7)]


def test_services_of_others_do_not_concern_us():
    assert limits(rule(host="db"), service(name="db", selector={"app": "db"}), service()) == []


def test_without_a_service_the_label_app_is_taken_for_its_name():
    assert limits(rule()) == [(None, 7)]
    assert limits(rule(host="web.foo.svc.cluster.local")) == [(None, 7)]
    assert limits(rule(host="db")) == []
    own = {"portLevelSettings": [{"port": {"number": 81}, "connectionPool": {"tcp": {"maxConnections": 3}}}]}
    assert limits(rule(**own)) == [(81, 3)]


@pytest.mark.parametrize("documents", [(), (service(),), (rule(None, loadBalancer={"simple": "RANDOM"}), service())])
def test_what_says_no_number_sets_no_limit(documents):
    assert limits(*documents) == []


def test_the_sidecar_resource_goes_before_destination_rules_and_the_narrowest_first():
    def sidecar(most: int, name: str, selector=None, namespace: str = "foo") -> str:
        spec = {"inboundConnectionPool": {"tcp": {"maxConnections": most}}}
        if selector:
            spec["workloadSelector"] = {"labels": selector}
        return document("Sidecar", spec, name=name, namespace=namespace)

    ours = sidecar(1, "ours", {"app": "web"})
    whole, root, others = sidecar(2, "all"), sidecar(3, "root", namespace="istio-system"), sidecar(4, "x", {"app": "x"})
    assert limits(rule(), service(), ours, whole, root, others) == [(None, 1)]
    assert limits(rule(), service(), whole, root, others) == [(None, 2)]
    assert limits(rule(), service(), root, others) == [(None, 3)]
    assert limits(rule(), service(), others) == [(8080, 7)]


def test_a_local_rate_limit_of_requests_limits_connections_by_the_same_bucket():
    limits = resources(to_yaml([local_rate_limit("all", "foo", {"app": "web"}, 10, 20),
                                local_rate_limit("port", "foo", {"app": "web"}, 1, 1, port=8080),
                                local_rate_limit("theirs", "foo", {"app": "other"}, 1)]))  # fmt: skip
    assert [(one.name, one.port, one.limit.max_tokens) for one in rates_of(limits, WEB)] == [
        ("EnvoyFilter foo/all", None, 20), ("EnvoyFilter foo/port", 8080, 1),
    ]  # fmt: skip
