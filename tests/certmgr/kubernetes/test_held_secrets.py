"""What has to be done with a Secret that was made for a service account."""

from __future__ import annotations

import base64
import datetime
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import HealthCheck, given, settings, strategies

from certmgr.authority import CertificateAndKey, WorkloadRequest, issue_workload
from certmgr.kem import issue_kem
from certmgr.kubernetes.held_secrets import (
    LABELS,
    PROPAGATION,
    Held,
    Task,
    annotations_for,
    held_of,
    renewal_time,
    task_for,
)
from certmgr.kubernetes.service_accounts import Wish
from certmgr.parts import Bundle
from mesh import names

WISH = Wish("shop", "web", "u-1", "web-tls", ("web.shop.svc",))
DAY = datetime.timedelta(days=1)


@pytest.fixture
def bundle(root: CertificateAndKey) -> Bundle:
    return Bundle({names.ROOTS_FILE: root.certificate_pem}, "a" * 64, "etag", "0123456789abcdef")


@pytest.fixture
def secret(root: CertificateAndKey, bundle: Bundle, now: datetime.datetime) -> dict[str, Any]:
    request = WorkloadRequest(
        spiffe_id=WISH.spiffe_id("cluster.local"), dns_names=WISH.dns_names, validity=datetime.timedelta(days=90)
    )
    identity, encryption = issue_workload(request, root, now), issue_kem(request, root, now)
    files = {
        "tls.crt": identity.certificate_pem + root.certificate_pem,
        "tls.key": identity.private_key_pem,
        "ca.crt": bundle.files[names.ROOTS_FILE],
        "kem.crt": encryption.certificate_pem,
        "kem.key": encryption.private_key_pem,
    }
    return {
        "metadata": {
            "namespace": "shop",
            "name": "web-tls",
            "resourceVersion": "7",
            "labels": dict(LABELS),
            "annotations": annotations_for(WISH, None, bundle, bundle.generation, now),
        },
        "data": {name: base64.b64encode(content).decode() for name, content in files.items()},
    }


Due = Callable[..., Task | None]


@pytest.fixture
def due(secret: dict[str, Any], bundle: Bundle, now: datetime.datetime) -> Due:
    """What is due, a moment after it was made unless said otherwise."""

    def asked(**changes: Any) -> Task | None:
        held = changes.pop("held", None) or held_of(secret)
        options: dict[str, Any] = {"trust_domain": "cluster.local", "is_revoked": lambda _: False, "acknowledged": ""}
        wish, published = changes.pop("wish", WISH), changes.pop("bundle", bundle)
        moment = changes.pop("now", now + datetime.timedelta(seconds=1))
        return task_for(wish, held, published, moment, **{**options, **changes})

    return asked


def test_nothing_is_due_with_what_was_made_a_moment_ago(due: Due, secret: dict[str, Any]) -> None:
    held = held_of(secret)

    assert due() is None
    assert (held.namespace, held.name, held.version, held.service_account) == ("shop", "web-tls", "7", "web")
    assert "PRIVATE" not in repr(held)


def test_roots_are_acknowledged_when_they_have_reached_the_pods_and_once(
    due: Due, now: datetime.datetime, bundle: Bundle
) -> None:
    assert due(now=now + PROPAGATION - datetime.timedelta(seconds=2)) is None
    assert due(now=now + PROPAGATION) is Task.ACKNOWLEDGE
    assert due(now=now + PROPAGATION, acknowledged=bundle.anchors) is None
    assert due(now=now + PROPAGATION, acknowledged="f" * 64) is Task.ACKNOWLEDGE


def test_it_is_renewed_when_thirty_days_of_ninety_are_left(due: Due, now: datetime.datetime) -> None:
    assert due(now=now + 59 * DAY, acknowledged="a" * 64) is None
    assert due(now=now + 60 * DAY) is Task.RENEW
    assert due(now=now + 91 * DAY) is Task.RENEW


@pytest.mark.parametrize(("life", "left"), [(DAY, DAY / 3), (9 * DAY, 3 * DAY), (90 * DAY, 30 * DAY)])
def test_of_a_shorter_life_a_third_is_the_threshold(
    root: CertificateAndKey, now: datetime.datetime, life: datetime.timedelta, left: datetime.timedelta
) -> None:
    request = WorkloadRequest(spiffe_id=WISH.spiffe_id("cluster.local"), validity=life)
    certificate = issue_workload(request, root, now).certificate

    # The five minutes that it is dated back are life, too.
    assert abs(certificate.not_valid_after_utc - renewal_time(certificate) - left) < datetime.timedelta(minutes=2)


def test_it_is_renewed_when_another_generation_signs(due: Due, bundle: Bundle) -> None:
    assert due(bundle=replace(bundle, generation="fedcba9876543210")) is Task.RENEW


@pytest.mark.parametrize("which", ["identity", "encryption"])
def test_it_is_renewed_when_either_certificate_was_revoked(due: Due, secret: dict[str, Any], which: str) -> None:
    revoked: x509.Certificate = getattr(held_of(secret), which)

    assert due(is_revoked=lambda certificate: certificate == revoked) is Task.RENEW


@pytest.mark.parametrize(
    "wish",
    [
        replace(WISH, dns_names=()),
        replace(WISH, dns_names=("web.shop.svc", "api.shop.svc")),
        replace(WISH, service_account="api"),
    ],
)
def test_it_is_renewed_when_something_else_is_wished_for(due: Due, wish: Wish) -> None:
    assert due(wish=wish) is Task.RENEW


def test_the_trust_domain_is_a_part_of_the_wish(due: Due) -> None:
    assert due(trust_domain="example.org") is Task.RENEW


@pytest.mark.parametrize("name", ["tls.crt", "tls.key", "kem.crt", "kem.key"])
@pytest.mark.parametrize("content", [None, "", "%%%", "eA==", "other"])
def test_it_is_renewed_when_a_certificate_or_its_key_was_edited(
    due: Due, secret: dict[str, Any], name: str, content: str | None
) -> None:
    other = {"tls.crt": "kem.crt", "kem.crt": "tls.crt", "tls.key": "kem.key", "kem.key": "tls.key"}[name]
    secret["data"][name] = secret["data"][other] if content == "other" else content
    if content is None:
        del secret["data"][name]

    assert due(held=held_of(secret)) is Task.RENEW


def test_the_key_of_another_certificate_is_no_key(due: Due, secret: dict[str, Any], web: CertificateAndKey) -> None:
    secret["data"]["tls.key"] = base64.b64encode(web.private_key_pem).decode()

    assert due(held=held_of(secret)) is Task.RENEW


def test_a_secret_without_anything_in_it_is_renewed(due: Due) -> None:
    assert due(held=held_of({"metadata": {"namespace": "shop", "name": "x", "resourceVersion": "1"}})) is Task.RENEW


def test_new_roots_are_published_without_a_new_certificate(due: Due, bundle: Bundle, now: datetime.datetime) -> None:
    both = bundle.files[names.ROOTS_FILE] * 2
    published = replace(bundle, files={names.ROOTS_FILE: both}, anchors="b" * 64)

    assert due(bundle=published, now=now + PROPAGATION) is Task.PUBLISH


def edited(held: Held, now: datetime.datetime) -> list[Held]:
    return [
        replace(held, roots="edited"),
        replace(held, anchors="edited"),
        replace(held, anchors_since=None),
        replace(held, anchors_since=now + DAY),
    ]


def test_edited_roots_are_put_right_and_their_time_begins_again(
    due: Due, secret: dict[str, Any], bundle: Bundle, now: datetime.datetime
) -> None:
    for held in edited(held_of(secret), now):
        assert due(held=held, now=now + PROPAGATION) is Task.PUBLISH
        later = now + 2 * PROPAGATION
        annotations = annotations_for(WISH, held, bundle, "0", later)
        assert annotations["qbitel.io/anchors-since"] == later.replace(microsecond=0).isoformat()


def test_a_renewal_does_not_begin_the_time_of_the_roots_again(
    secret: dict[str, Any], bundle: Bundle, now: datetime.datetime
) -> None:
    annotations = annotations_for(WISH, held_of(secret), bundle, "0", now + 60 * DAY)

    assert annotations["qbitel.io/anchors-since"] == now.replace(microsecond=0).isoformat()


@pytest.mark.parametrize("text", ["", "soon", "2026-11-25", "2026-11-25T12:00:00", "9" * 40])
def test_a_time_that_cannot_be_read_counts_as_none(secret: dict[str, Any], text: str) -> None:
    secret["metadata"]["annotations"]["qbitel.io/anchors-since"] = text

    assert held_of(secret).anchors_since is None


def hostile(secret: dict[str, Any], der: bytes) -> dict[str, Any]:
    """The Secret with this leaf in it, which whoever may edit it can put there."""
    pem = b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"
    return {**secret, "data": {**secret["data"], "tls.crt": base64.b64encode(pem).decode()}}


def test_a_certificate_that_says_a_thing_twice_is_renewed_and_stops_nobody(secret: dict[str, Any], due: Due) -> None:
    # Two extensions of one kind: an object that can be read, and whose extensions cannot.
    der = x509.load_pem_x509_certificates(base64.b64decode(secret["data"]["tls.crt"]))[0].public_bytes(Encoding.DER)
    usage, names_oid = bytes.fromhex("0603551d0f"), bytes.fromhex("0603551d11")
    assert der.count(usage) == 1
    changed = hostile(secret, der.replace(usage, names_oid))
    held = held_of(changed)
    assert held.identity is not None
    with pytest.raises(x509.DuplicateExtension):
        _ = held.identity.extensions

    assert due(held=held) is Task.RENEW


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=400)
@given(data=strategies.data())
def test_no_byte_of_a_certificate_that_is_another_stops_the_rest(
    secret: dict[str, Any], due: Due, data: strategies.DataObject
) -> None:
    der = bytearray(
        x509.load_pem_x509_certificates(base64.b64decode(secret["data"]["tls.crt"]))[0].public_bytes(Encoding.DER)
    )
    # Its key and its signature are most of it and of no interest: what is read stands around them.
    key = 2592
    start = der.index(x509.load_der_x509_certificate(bytes(der)).public_key().public_bytes_raw())
    end_of_extensions = len(der) - 4627
    places = strategies.one_of(strategies.integers(0, start), strategies.integers(start + key, end_of_extensions))
    for place in data.draw(strategies.lists(places, min_size=1, max_size=3)):
        der[place] = data.draw(strategies.integers(0, 255))

    def looked_at(certificate: x509.Certificate) -> bool:
        return certificate.issuer == certificate.subject or certificate.serial_number == 1

    assert due(held=held_of(hostile(secret, bytes(der))), is_revoked=looked_at) in (None, *Task)
