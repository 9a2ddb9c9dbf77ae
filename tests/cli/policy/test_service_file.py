"""A service's policy as a file."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.policy.service_file import read_service_policy
from mesh.documents import Document, read_documents
from mesh.errors import UserError

WHOLE = b"""\
service_name: payment
namespace: shop
allowedSources: [front, batch/nightly]
allowed_operations: [GET, POST]
requireMtls: true
rateLimit: 100
rate_limit_burst: 200
connectionPool:
  maxConnections: 10
  connect_timeout: 1.5s
outlierDetection: {consecutive5xxErrors: 3}
loadBalancer: {algorithm: ROUND_ROBIN}
retries: {attempts: 2, retryOn: [5xx]}
timeout: 2s
selector: {tier: money}
"""


def document(text: bytes) -> Document:
    (found,), problems = read_documents(text, "service.yaml")
    assert problems == ()
    return found


def test_a_whole_policy_is_read_in_either_spelling() -> None:
    policy = read_service_policy(document(WHOLE))

    assert policy.service_name == "payment"
    assert policy.allowed_sources == ("front", "batch/nightly")
    assert (policy.rate_limit, policy.rate_limit_burst) == (100, 200)
    assert policy.connection_pool is not None
    assert policy.connection_pool.max_connections == 10
    assert policy.outlier_detection is not None
    assert policy.outlier_detection.consecutive_5xx_errors == 3
    assert policy.retries is not None
    assert policy.retries.attempts == 2
    assert policy.pod_labels == {"tier": "money"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"namespace: shop", "service.yaml:1: service_name: is missing: the name of the Service"),
        (b"service_name: a\nrate_limt: 1", "service.yaml:2: rate_limt: is no field; did you mean rate_limit?"),
        (b"service_name: a\nzzz: 1", "service.yaml:2: zzz: is no field; there are: service_name, "),
        (
            b"service_name: a\nrateLimit: 1\nrate_limit: 2",
            "service.yaml:3: rate_limit: is rate_limit, ",
        ),
        (b"service_name: a\nrateLimit: -1", "service.yaml:2: rateLimit: -1 is not allowed; give"),
        (b"service_name: a\n\nallowedSources: [A B]", "service.yaml:3: allowedSources: 'A B' is not allowed; give"),
        (b"service_name: 7", "service.yaml:1: service_name: 7 is not allowed; give"),
        (b"service_name: a\nretries: 3", "service.yaml:2: retries: is no map of attempts, "),
        (
            b"service_name: a\nretries:\n  attemps: 1",
            "service.yaml:3: retries.attemps: is no field; did you mean attempts?",
        ),
        (b"service_name: a\nretries:\n  attempts: -1", "service.yaml:3: retries.attempts: -1 is not allowed"),
        (b"service_name: a\nretries: {}", "service.yaml:2: retries: "),
        (b"apiVersion: v1\nkind: Service", "service.yaml:1: is a Kubernetes resource; a service's policy has"),
    ],
)
def test_what_is_wrong_has_its_line(text: bytes, says: str) -> None:
    with pytest.raises(UserError) as refused:
        read_service_policy(document(text))
    assert str(refused.value).startswith(says)
    assert str(refused.value).isprintable()


FIELDS = ["service_name", "namespace", "allowed_sources", "rate_limit", "retries", "selector", "timeout", "Retries"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["attempts", "app"]), inner),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from(FIELDS), VALUES))
def test_no_values_make_it_fail_otherwise(value: dict[str, Any]) -> None:
    try:
        read_service_policy(Document(value, "service.yaml", {(): 1}))
    except UserError as error:
        assert str(error).startswith("service.yaml:1: ")
