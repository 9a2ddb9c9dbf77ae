"""From names that people use to pods that policies select."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.documents import Document, read_documents
from mesh.inventory import Inventory
from mesh.selectors import Workload

SHOP = b"""\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  selector: {app: web}
  ports:
  - {name: http-main, port: 80, targetPort: http}
  - {name: metrics, port: 9090, appProtocol: http2}
  - {port: 5432, targetPort: 15432}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web-v1, namespace: shop}
spec:
  template:
    metadata:
      labels: {app: web, version: v1}
    spec:
      serviceAccountName: web-account
      containers:
      - ports: [{name: http, containerPort: 8080}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web-v2, namespace: shop}
spec:
  template:
    metadata:
      labels: {app: web, version: v2}
    spec: {containers: [{}]}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly, namespace: shop}
spec: {jobTemplate: {spec: {template: {metadata: {labels: {app: nightly}}, spec: {serviceAccountName: night}}}}}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {selector: {role: database}, ports: [{port: 5432}]}
---
apiVersion: v1
kind: Service
metadata: {name: abroad, namespace: shop}
spec: {type: ExternalName, externalName: example.org}
---
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: 7}
"""


def inventory(text: bytes) -> Inventory:
    documents, problems = read_documents(text, "shop.yaml")
    assert problems == ()
    return Inventory.of(documents)


def test_a_service_stands_for_the_workloads_behind_it() -> None:
    place = inventory(SHOP).find("shop", "web")

    assert place.assumed == ""
    assert place.service is not None
    assert str(place.service) == "shop/web"
    assert place.workloads == (
        Workload("shop", {"app": "web", "version": "v1"}, "web-account", "web-v1"),
        Workload("shop", {"app": "web", "version": "v2"}, "default", "web-v2"),
    )


def test_the_ports_of_a_service_lead_to_those_of_its_pods() -> None:
    place = inventory(SHOP).find("shop", "web")

    assert [place.port_on_pods(port) for port in (80, 9090, 5432, 8080, 1)] == [8080, 9090, 15432, 8080, 1]
    assert [place.port_of_service(port) for port in (80, 8080, 9090, 15432, 1)] == [80, 80, 9090, 5432, None]
    assert place.service is not None
    assert [port.protocol for port in place.service.ports] == ["http", "http2", ""]


def test_a_workload_is_found_by_its_own_name_and_knows_its_service() -> None:
    found = inventory(SHOP)
    place = found.find("shop", "web-v1")

    assert [workload.name for workload in place.workloads] == ["web-v1"]
    assert place.service is found.services[0]
    assert place.port_on_pods(80) == 8080
    assert found.find("shop", "nightly").workloads == (Workload("shop", {"app": "nightly"}, "night", "nightly"),)


def test_of_a_service_without_known_pods_the_selector_is_taken_and_the_account_assumed() -> None:
    place = inventory(SHOP).find("shop", "db")

    assert place.workloads == (Workload("shop", {"role": "database"}, "db", "db"),)
    assert place.assumed == "the pods behind Service shop/db have the service account db"


@pytest.mark.parametrize("name", ["cart", "abroad"])
def test_a_name_that_no_document_explains_means_what_names_usually_mean(name: str) -> None:
    place = inventory(SHOP).find("shop", name)

    assert place.workloads == (Workload("shop", {"app": name}, name, name),)
    assert place.assumed == f"the pods of shop/{name} have the label app={name} and the service account {name}"


def test_namespaces_are_kept_apart() -> None:
    assert inventory(SHOP).find("other", "web").workloads == (Workload("other", {"app": "web"}, "web", "web"),)
    assert inventory(b"kind: Pod\napiVersion: v1\nmetadata: {name: a}").find("default", "a").assumed == ""


@pytest.mark.parametrize(
    "text",
    [
        b"apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec: {selector: [web]}",
        b"apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec: {ports: [{port: http}]}",
        b"apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec: {ports: 80}",
        b"apiVersion: v1\nkind: Service\nmetadata: {name: 8}",
        b"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop}\nspec: {template: 1}",
        b"apiVersion: v1\nkind: Pod\nmetadata: {name: web, labels: {app: 1}}",
        b"apiVersion: v1\nkind: Pod\nmetadata: []",
    ],
)
def test_what_is_no_workload_or_service_is_left_out_with_a_warning(text: bytes) -> None:
    found = inventory(text)

    assert (found.services, found.workloads) == ((), ())
    assert [problem.severity for problem in found.problems] == ["warning"]
    assert "is not read: " in str(found.problems[0])


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["spec", "metadata", "template", "labels", "name", "selector", "ports", "port", "containers"]
            ),
            inner,
        )
    ),
    max_leaves=12,
)


@given(st.sampled_from(["Service", "Pod", "Deployment", "CronJob"]), _JSON, _JSON)
def test_no_shape_of_a_document_makes_it_fail(kind: str, metadata: Any, spec: Any) -> None:
    api = "v1" if kind in {"Service", "Pod"} else "apps/v1"
    value = {"apiVersion": api, "kind": kind, "metadata": metadata, "spec": spec}

    found = Inventory.of([Document(value, "any", {})])
    assert len(found.services) + len(found.workloads) + len(found.problems) == 1
