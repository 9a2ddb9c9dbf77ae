"""Credentials in memory, and the roots by which the authority is known."""

from __future__ import annotations

import dataclasses
import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mesh.errors import UserError
from pqtls import PROFILES, TicketKeeper
from pqtls.errors import IdentityRefused, MisuseError
from pqtls.provider import default_provider
from proxy.answers import AuthorityFailed, Failure, Issued, Published
from proxy.config import Endpoint, EnrolmentConfig, TrustFiles
from proxy.credentials import TlsSettings, TrustPem
from proxy.enrolled_credentials import EnrolledCredentials
from proxy.enrolment import make_request
from proxy.identity import IdentityRule
from tests.proxy.little_authority import Generation, LittleAuthority, utc_now
from tests.support import pki

DOMAINS = frozenset({"cluster.local"})
AUTHORITY = "spiffe://cluster.local/ns/qbitel-system/sa/qbitel-certmgr"


class Clock:
    ahead = datetime.timedelta(0)

    def __call__(self) -> datetime.datetime:
        return utc_now() + self.ahead


@pytest.fixture
def authority():
    return LittleAuthority()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def make(authority, tmp_path, clock):
    def made(profile: str = "qbitel") -> EnrolledCredentials:
        config = EnrolmentConfig(
            authority=Endpoint("a", 1), roots=TrustFiles.in_folder(tmp_path), token=tmp_path / "token", instance="pod"
        )
        settings = TlsSettings(
            profiles=(PROFILES[profile],),
            accept_identity=IdentityRule(DOMAINS, frozenset()),
            now=clock,
            tickets=TicketKeeper(default_provider()),
        )
        return EnrolledCredentials(config, settings, DOMAINS)

    authority.write_roots(tmp_path)
    return made


@pytest.fixture
def credentials(make):
    return make()


def published(authority) -> Published:
    bundle = authority.bundle()
    pem = {name: content.encode() for name, content in bundle["files"].items()}
    trust = TrustPem(pem["ca.crt"], pem["intermediates.crt"], pem.get("crl.pem", b""))
    return Published(trust, bundle["etag"], bundle["generation"], bundle["round"])


def enrol(credentials, authority, name: str = "web") -> None:
    request = make_request()
    leaf = authority.sign(x509.load_pem_x509_csr(request.csr).public_key(), name)
    chain = leaf.public_bytes(Encoding.PEM) + authority.signer.intermediate.certificate_pem
    credentials.take_certificate(request, Issued(chain, authority.signer.name, published(authority)))


def test_before_the_first_certificate_there_is_none(credentials):
    assert credentials.credential is None
    assert credentials.published is None
    with pytest.raises(MisuseError):
        _ = credentials.current
    assert credentials.toward_authority(None).credential is None


def test_a_certificate_and_what_is_published_are_in_use_together_and_tickets_outlive_a_renewal(credentials, authority):
    enrol(credentials, authority)
    first = credentials.current
    assert first.identity == "spiffe://cluster.local/ns/default/sa/web"
    assert len(first.mesh_client.trust.intermediates) == 1
    enrol(credentials, authority)
    second = credentials.current
    assert second.credential.chain != first.credential.chain
    assert second.mesh_server.tickets is first.mesh_server.tickets


def test_the_same_publication_is_not_read_twice(credentials, authority):
    enrol(credentials, authority)
    before = credentials.current.trust
    credentials.take_published(credentials.published)
    assert credentials.current.trust is before


def test_another_identity_and_a_list_that_vanishes_change_nothing(credentials, authority):
    enrol(credentials, authority)
    before = credentials.current
    with pytest.raises(AuthorityFailed, match="but we are"):
        enrol(credentials, authority, "api")
    authority.publishes_lists = False
    with pytest.raises(AuthorityFailed, match="no longer publishes"):
        credentials.take_published(published(authority))
    assert credentials.current is before


def numbered(authority, number: int) -> Published:
    """What the authority publishes, with lists of this number."""
    found = published(authority)
    lists = b"".join(
        pki.crl(signer=one.intermediate, number=number, next_update=utc_now() + datetime.timedelta(hours=1))
        for one in authority.generations
    )
    return dataclasses.replace(found, trust=dataclasses.replace(found.trust, crls=lists), etag=str(number))


def test_an_older_revocation_list_is_refused_and_counted_and_changes_nothing(credentials, authority):
    counted = []
    credentials.count_older_list = lambda: counted.append(1)
    enrol(credentials, authority)
    credentials.take_published(numbered(authority, 7))
    before = credentials.current
    with pytest.raises(AuthorityFailed, match="has the number 6, but number 7 is in use already") as caught:
        credentials.take_published(numbered(authority, 6))
    assert caught.value.failure is Failure.INVALID
    with pytest.raises(AuthorityFailed, match="has the number 1,"):
        enrol(credentials, authority)
    assert len(counted) == 2
    assert credentials.current is before
    assert credentials.published.etag == "7"
    credentials.take_published(numbered(authority, 8))
    assert credentials.published.etag == "8"


def test_an_older_list_in_the_folder_is_refused_and_counted(make, authority, tmp_path, caplog):
    first = authority.generations[0]
    (tmp_path / "intermediates.crt").write_bytes(first.intermediate.certificate_pem)

    def write_list(number: int, *revoked: pki.Issued) -> None:
        end = utc_now() + datetime.timedelta(hours=1)
        (tmp_path / "crl.pem").write_bytes(pki.crl(*revoked, signer=first.intermediate, number=number, next_update=end))

    write_list(7, pki.leaf("server"))
    credentials = make()
    counted = []
    credentials.count_older_list = lambda: counted.append(1)
    write_list(6)
    for _ in range(2):
        assert len(credentials.toward_authority(None).trust.revoked) == 1
    assert len(counted) == 2
    assert caplog.text.count("number 7 is in use already") == 1
    write_list(8)
    assert credentials.toward_authority(None).trust.revoked == frozenset()


def test_the_authority_is_the_reserved_identity_and_nobody_else(credentials):
    accept = credentials.toward_authority(None).accept_identity
    accept(AUTHORITY)
    for other in (AUTHORITY.replace("cluster.local", "elsewhere"), "spiffe://cluster.local/ns/default/sa/web"):
        with pytest.raises(IdentityRefused):
            accept(other)


def test_the_authority_may_be_under_the_folders_roots_or_under_what_it_published(credentials, authority, tmp_path):
    assert len(credentials.toward_authority(None).trust.roots) == 1
    authority.generations.append(Generation("second"))
    enrol(credentials, authority)
    assert len(set(credentials.toward_authority(None).trust.roots)) == 2
    third = Generation("third")
    (tmp_path / "ca.crt").write_bytes(third.root.certificate_pem)
    trusted = credentials.toward_authority(None).trust
    assert third.root.certificate in trusted.roots
    assert authority.generations[1].root.certificate in trusted.roots
    assert third.root.certificate not in credentials.current.trust.roots, "peers are the authority's to name"


def test_roots_that_break_keep_the_last_good_ones_and_are_said_once(credentials, tmp_path, caplog):
    good = credentials.toward_authority(None).trust.roots
    (tmp_path / "ca.crt").write_bytes(b"nonsense")
    for _ in range(3):
        assert credentials.toward_authority(None).trust.roots == good
    assert caplog.text.count("the last good ones stay in use") == 1


def test_roots_that_were_never_there_are_refused_at_once(make, tmp_path):
    (tmp_path / "ca.crt").unlink()
    with pytest.raises(UserError, match=r"ca\.crt does not exist"):
        make()


def test_a_list_that_went_out_of_use_does_not_keep_us_from_fetching_the_next(credentials, authority, clock):
    enrol(credentials, authority)
    assert credentials.toward_authority(None).trust.usable_until < utc_now() + datetime.timedelta(days=2)
    clock.ahead = datetime.timedelta(days=3)
    trust = credentials.toward_authority(None).trust
    assert trust.usable_until > clock()
    assert trust.roots


def test_our_own_revocation_is_seen(credentials, authority):
    enrol(credentials, authority)
    assert not credentials.is_revoked()
    authority.revoked.append(x509.load_der_x509_certificate(credentials.credential.chain[0]))
    credentials.take_published(published(authority))
    assert credentials.is_revoked()
