"""Which resources differ between two sets."""

from __future__ import annotations

from mesh.documents import Document, read_documents
from mesh.resource_changes import governs, identity, resource_changes
from tests.mesh.written import allow, mode, resource, strict


def documents(*texts: str) -> tuple[Document, ...]:
    found, problems = read_documents("---\n".join(texts).encode(), "policy.yaml")
    assert problems == ()
    return found


def test_what_is_added_removed_or_changed_is_told_by_field() -> None:
    found = resource_changes(
        documents(strict(), allow("shop/web", "[{}]"), allow("shop/old", "[{}]")),
        documents(allow("shop/new", "[{}]"), mode("shop/default", "DISABLE"), allow("shop/web", "[{}, {}]")),
    )

    assert [(one.what, one.resource, one.fields) for one in found] == [
        ("added", "AuthorizationPolicy shop/new", ()),
        ("removed", "AuthorizationPolicy shop/old", ()),
        ("changed", "AuthorizationPolicy shop/web", ("spec.rules",)),
        ("changed", "PeerAuthentication shop/default", ("spec.mtls.mode",)),
    ]
    assert found[0].before is None
    assert found[1].after is None
    assert found[3].after is not None
    assert found[3].after.line() == 6


def test_what_a_server_adds_and_versions_are_no_change() -> None:
    mine = strict()
    server = (
        mine.replace("security.istio.io/v1", "security.istio.io/v1beta1")
        .replace("annotations: {}", "annotations: {kubectl.kubernetes.io/last-applied-configuration: x}, uid: y")
        .replace("spec:", "status: {seen: true}\nspec:")
    )

    assert resource_changes(documents(mine), documents(server)) == ()


def test_an_annotation_that_means_something_is_a_change() -> None:
    before = resource("DestinationRule", "shop/web", "{host: web}")
    after = resource("DestinationRule", "shop/web", "{host: web}", annotations="{qbitel.io/profile: cnsa2}")

    (change,) = resource_changes(documents(before), documents(after))
    assert change.fields == ("metadata.annotations['qbitel.io/profile']",)


def test_what_does_not_govern_is_left_out() -> None:
    service = documents(resource("Service", "shop/web", "{}"))

    assert not governs(service[0])
    assert resource_changes(service, ()) == ()
    assert governs(documents(strict())[0])


def test_a_document_without_names_has_an_identity_all_the_same() -> None:
    assert identity(Document({"metadata": 3}, "x", {})) == ("", "None", "default", "None")


def test_many_fields_are_not_listed_without_end() -> None:
    def with_ports(mode: str) -> str:
        ports = ", ".join(f"'{port}': {{mode: {mode}}}" for port in range(1, 100))
        return resource("PeerAuthentication", "shop/a", f"{{portLevelMtls: {{{ports}}}}}")

    (change,) = resource_changes(documents(with_ports("STRICT")), documents(with_ports("DISABLE")))
    assert len(change.fields) == 20
