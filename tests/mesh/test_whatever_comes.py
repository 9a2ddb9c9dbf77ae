"""A text of whatever kind, from bytes to answers: nothing makes the functions behind `qbitel policy` fail."""

from __future__ import annotations

import pytest

from mesh.conflicts import of_set
from mesh.differences import decision_changes
from mesh.documents import read_documents
from mesh.resource_changes import resource_changes
from mesh.resources import ResourceSet
from mesh.verification import verify
from tests.mesh.written import allow, deny, mode, resource, resources, rule

EVERYTHING = "---\n".join(
    [
        mode("shop/default", "STRICT"),
        resource(
            "PeerAuthentication",
            "shop/web",
            "{selector: {matchLabels: {app: web}}, portLevelMtls: {'8080': {mode: DISABLE}}}",
        ),
        rule("shop/web", "web", "{portLevelSettings: [{port: {number: 80}, tls: {mode: DISABLE}}]}"),
        allow("shop/web", "[{from: [{source: {principals: ['*/sa/a'], ipBlocks: [10.0.0.0/8]}}]}]"),
        allow("shop/api", "[{to: [{operation: {ports: ['8080'], paths: ['/a*']}}]}]"),
        deny("istio-system/all", "[{when: [{key: 'request.headers[x]', values: [a]}]}]"),
        deny("istio-system/port", "[{when: [{key: destination.port, notValues: ['1']}]}]"),
        resource("RequestAuthentication", "shop/jwt", "{jwtRules: [{issuer: 'https://a.example', audiences: [b]}]}"),
        resource("Service", "shop/web", "{selector: {app: web}, ports: [{name: http, port: 80, targetPort: web}]}"),
        resource(
            "Deployment",
            "shop/web",
            "{template: {metadata: {labels: {app: web}}, "
            "spec: {containers: [{ports: [{name: web, containerPort: 8080}]}]}}}",
        ),
    ]
).encode()  # fmt: skip
BEFORE = resources(EVERYTHING.decode())


def answers(text: bytes) -> None:
    documents, problems = read_documents(text, "any.yaml")
    found = ResourceSet.of(documents)
    for problem in (*problems, *found.problems, *of_set(found)):
        assert str(problem).isprintable(), problem
    verification = verify(found, "shop/front", "shop/web")
    assert str(verification)
    assert verification.as_dict()
    decision_changes(BEFORE, found, most_questions=10)
    resource_changes((), documents)


def test_the_sample_itself_is_sound() -> None:
    assert BEFORE.problems == () or not BEFORE.errors
    answers(EVERYTHING)


def test_a_text_that_is_cut_anywhere_is_answered() -> None:
    for end in range(0, len(EVERYTHING), 13):
        answers(EVERYTHING[:end])


@pytest.mark.parametrize("byte", [0x0A, 0x2A, 0x31, 0x5B])
def test_a_text_that_is_bent_anywhere_is_answered(byte: int) -> None:
    for index in range(byte % 31, len(EVERYTHING), 31):
        answers(EVERYTHING[:index] + bytes([byte]) + EVERYTHING[index + 1 :])
