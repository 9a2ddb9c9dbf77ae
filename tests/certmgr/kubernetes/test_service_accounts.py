"""What a service account may ask for by annotation."""

from __future__ import annotations

from typing import Any

import pytest

from certmgr.kubernetes.service_accounts import Wish, wish_of
from mesh.errors import UserError


def account(namespace: str = "shop", name: str = "web", **annotations: str) -> dict[str, Any]:
    wanted = {f"qbitel.io/{key.replace('_', '-')}": value for key, value in annotations.items()}
    return {"metadata": {"namespace": namespace, "name": name, "uid": "u-1", "annotations": wanted}}


def test_without_the_annotation_nothing_is_wanted() -> None:
    assert wish_of({"metadata": {"namespace": "shop", "name": "web", "uid": "u"}}, "cluster.local") is None
    assert wish_of(account(dns_names="web.shop.svc"), "cluster.local") is None


def test_a_secret_and_names_of_its_own_namespace_may_be_wanted() -> None:
    names = "web.shop.svc, web.shop.svc.cluster.local,pod-0.web.shop.svc,"
    wish = wish_of(account(certificate_secret="web-tls", dns_names=names), "cluster.local")

    assert wish == Wish(
        "shop", "web", "u-1", "web-tls", ("web.shop.svc", "web.shop.svc.cluster.local", "pod-0.web.shop.svc")
    )
    assert str(wish.spiffe_id("example.org")) == "spiffe://example.org/ns/shop/sa/web"
    assert wish_of(account(certificate_secret="web-tls"), "cluster.local").dns_names == ()  # type: ignore[union-attr]


def test_a_service_account_that_is_being_deleted_wants_nothing_any_more() -> None:
    going = account(certificate_secret="web-tls")
    going["metadata"]["deletionTimestamp"] = "2026-11-25T12:00:00Z"

    assert wish_of(going, "cluster.local") is None


@pytest.mark.parametrize(
    "name",
    [
        "web.other.svc",
        "shop.svc",
        ".shop.svc",
        "web.shop.svc.example.org",
        "webshop.svc",
        "*.shop.svc",
        "web.shop",
        "web.shop.svc.",
        "example.org",
        "web.shop.svc.cluster.local.example.org",
        "a" * 64 + ".shop.svc",
    ],
)
def test_names_of_others_are_refused_and_not_left_out(name: str) -> None:
    with pytest.raises(UserError):
        wish_of(account(certificate_secret="web-tls", dns_names=f"web.shop.svc,{name}"), "cluster.local")


def test_more_names_than_a_certificate_holds_are_refused() -> None:
    names = ",".join(f"web-{number}.shop.svc" for number in range(101))

    with pytest.raises(UserError, match="101 names; give at most 100"):
        wish_of(account(certificate_secret="web-tls", dns_names=names), "cluster.local")


@pytest.mark.parametrize("secret", ["", "Upper", "a/b", "../x", "a" * 254])
def test_what_cannot_name_a_secret_is_refused(secret: str) -> None:
    with pytest.raises(UserError, match="certificate-secret"):
        wish_of(account(certificate_secret=secret), "cluster.local")


def test_the_authority_s_own_identity_is_given_to_nobody() -> None:
    with pytest.raises(UserError, match="given to nobody"):
        wish_of(account("qbitel-system", "qbitel-certmgr", certificate_secret="mine"), "cluster.local")
