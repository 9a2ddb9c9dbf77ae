"""Roots, held intermediates, and revocation lists."""

from __future__ import annotations

import datetime
from functools import cache
from types import SimpleNamespace
from typing import Any, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

import pqtls
from pqtls import trust as trust_module
from pqtls.certificates import Purpose, ValidatedChain, validate_chain
from pqtls.errors import Alert, CertificateRefused, ConfigurationError
from pqtls.signatures import MLDSA87
from pqtls.trust import DEFAULT_CRL_GRACE, OlderRevocationList, TrustAnchors
from pqtls.x509_reading import path_id
from tests.support import pki
from tests.support.pki import NOW, Issued, crl, make_certificate, root
from tests.support.resumption import meet

SECOND = datetime.timedelta(seconds=1)
WEEK = datetime.timedelta(days=7)


@cache
def _between() -> Issued:
    return make_certificate(issuer=root(), subject="Between", is_ca=True, path_length=0, not_after=NOW + 2 * WEEK)


@cache
def _leaf() -> Issued:
    return make_certificate(
        issuer=_between(), subject="leaf", names=(pki.uri(pki.identity("leaf")),), not_after=NOW + 2 * WEEK
    )


@cache
def _long_root() -> Issued:
    return make_certificate(issuer=None, subject="Long Root", is_ca=True, path_length=1, not_after=NOW + 3 * WEEK)


def _trust(**changes: Any) -> TrustAnchors:
    return TrustAnchors.from_pem(root().certificate_pem, **changes)


def _validate(
    trust: TrustAnchors, *chain: Issued, now: datetime.datetime = NOW, purpose: Purpose = Purpose.SERVER
) -> ValidatedChain:
    return validate_chain(tuple(one.der for one in chain), trust, purpose, now, (MLDSA87,))


def _refused(trust: TrustAnchors, *chain: Issued, **changes: Any) -> tuple[Alert | None, str]:
    with pytest.raises(CertificateRefused) as caught:
        _validate(trust, *chain, **changes)
    return caught.value.alert, caught.value.reason


# -- intermediates that we hold -------------------------------------------------------------------------------------


def test_a_leaf_alone_is_enough_where_the_intermediate_is_held() -> None:
    held = _trust(intermediates=_between().certificate_pem)
    assert _validate(held, _leaf()).identity == pki.identity("leaf")
    assert _refused(_trust(), _leaf()) == (Alert.UNKNOWN_CA, "unknown_root")


def test_a_held_intermediate_is_no_root() -> None:
    foreign = make_certificate(issuer=pki.root("Foreign"), subject="Foreign Between", is_ca=True, path_length=0)
    leaf = make_certificate(issuer=foreign, subject="leaf", names=(pki.uri(pki.identity("leaf")),))
    held = _trust(intermediates=foreign.certificate_pem)
    with pytest.raises(CertificateRefused):
        _validate(held, leaf)
    with pytest.raises(CertificateRefused):
        _validate(held, leaf, foreign)


def test_the_names_that_are_told_to_a_peer_are_those_of_roots_and_intermediates_once_each() -> None:
    pem = root().certificate_pem * 2 + pki.root("Another Root").certificate_pem
    trust = TrustAnchors.from_pem(pem, intermediates=_between().certificate_pem)
    subjects = [one.certificate.subject.public_bytes() for one in (root(), pki.root("Another Root"), _between())]
    assert trust.names == tuple(subjects)


def _pair(*, client_holds: bool, server_holds: bool) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """The chains that server and client sent, as the other saw them."""
    held = _trust(intermediates=_between().certificate_pem)
    credential = pki.credential(_leaf(), _between())
    met = meet(
        pki.client_config(credential=credential, trust=held if client_holds else _trust()),
        pki.server_config(credential=credential, trust=held if server_holds else _trust()),
    )
    return met.at_client.peer_chain, met.at_server.peer_chain


@pytest.mark.parametrize("client_holds", [False, True])
@pytest.mark.parametrize("server_holds", [False, True])
def test_a_peer_that_holds_the_intermediate_gets_the_leaf_alone_and_another_the_chain(
    client_holds: bool, server_holds: bool
) -> None:
    whole, short = (_leaf().der, _between().der), (_leaf().der,)
    from_server, from_client = _pair(client_holds=client_holds, server_holds=server_holds)
    assert from_server == (short if client_holds else whole)
    assert from_client == (short if server_holds else whole)


# -- revocation -----------------------------------------------------------------------------------------------------


def test_a_revoked_leaf_is_refused_and_its_neighbour_is_not() -> None:
    trust = pki.trust_with_crl(pki.leaf("server"))
    assert _refused(trust, pki.leaf("server")) == (Alert.CERTIFICATE_REVOKED, "revoked")
    assert _validate(trust, pki.leaf("client")).identity == pki.identity("client")


def test_a_leaf_under_a_revoked_intermediate_is_refused() -> None:
    trust = pki.trust_with_crl(_between())
    assert _refused(trust, _leaf(), _between()) == (Alert.CERTIFICATE_REVOKED, "revoked")


def test_an_intermediate_that_we_hold_may_sign_a_list_of_its_own() -> None:
    trust = _trust(intermediates=_between().certificate_pem, crls=crl(_leaf(), signer=_between()))
    assert _refused(trust, _leaf()) == (Alert.CERTIFICATE_REVOKED, "revoked")
    assert _validate(trust, pki.leaf("server"))


def test_a_serial_number_is_revoked_for_its_own_issuer_only() -> None:
    trust = pki.trust_with_crl(_leaf())  # the root's list names a serial number of the intermediate's
    assert _validate(trust, _leaf(), _between()).identity == pki.identity("leaf")
    assert trust.revoked == {path_id(root().certificate.subject, _leaf().certificate.serial_number)}


def test_all_lists_of_the_file_count() -> None:
    trust = _trust(crls=crl(pki.leaf("client")) + b"a comment\n" + crl(pki.leaf("server")))
    for name in ("client", "server"):
        assert _refused(trust, pki.leaf(name)) == (Alert.CERTIFICATE_REVOKED, "revoked")


@pytest.mark.parametrize("grace", [datetime.timedelta(0), datetime.timedelta(hours=1), DEFAULT_CRL_GRACE])
def test_a_list_is_used_to_the_second_of_next_update_and_grace_and_then_everybody_is_refused(
    grace: datetime.timedelta,
) -> None:
    trust = TrustAnchors.from_pem(_long_root().certificate_pem, crls=crl(signer=_long_root()), crl_grace=grace)
    leaf = make_certificate(
        issuer=_long_root(), subject="long", names=(pki.uri(pki.identity("long")),), not_after=NOW + 2 * WEEK
    )
    end = NOW + pki.DAY + grace
    assert trust.usable_until == end
    assert _validate(trust, leaf, now=end)
    assert _refused(trust, leaf, now=end + SECOND) == (Alert.CERTIFICATE_UNKNOWN, "stale_crl")


def test_the_list_that_ends_first_decides() -> None:
    lists = crl(next_update=NOW + 2 * pki.DAY) + crl(next_update=NOW + pki.DAY) + crl(next_update=NOW + WEEK)
    assert _trust(crls=lists, crl_grace=SECOND).usable_until == NOW + pki.DAY + SECOND


def test_a_list_without_end_in_practice_is_usable_for_ever() -> None:
    last = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
    assert _trust(crls=crl(next_update=last)).usable_until >= last


def test_without_a_list_nothing_is_revoked_and_nothing_goes_stale() -> None:
    trust = _trust()
    assert trust.revoked == frozenset()
    assert trust.usable_until.year == 9999


def test_a_list_of_a_foreign_signer_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match=r"list of CN=Foreign is signed by none of our authorities"):
        _trust(crls=crl(signer=pki.root("Foreign")))


def test_a_list_under_the_name_of_our_root_that_another_key_signed_is_a_configuration_error() -> None:
    impostor = make_certificate(issuer=None, subject="QBITEL Test Root", is_ca=True)
    with pytest.raises(ConfigurationError, match="signed by none of our authorities"):
        _trust(crls=crl(pki.leaf("server"), signer=impostor))
    classical = make_certificate(
        issuer=None, subject="QBITEL Test Root", is_ca=True, key=ec.generate_private_key(ec.SECP384R1())
    )
    with pytest.raises(ConfigurationError):
        _trust(crls=crl(pki.leaf("server"), signer=classical))


@pytest.mark.parametrize("text", [b"nothing", b"\x30\x82\x01\x00", root().certificate_pem])
def test_a_file_without_a_list_in_pem_is_a_configuration_error(text: bytes) -> None:
    with pytest.raises(ConfigurationError, match="holds no PEM list"):
        _trust(crls=text)


def test_an_empty_file_of_lists_is_as_none() -> None:
    assert _trust(crls=b" \n").usable_until == _trust().usable_until


def test_a_list_that_cannot_be_read_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="a revocation list cannot be read"):
        _trust(crls=b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n")


def test_files_without_a_certificate_are_a_configuration_error_that_names_the_file() -> None:
    with pytest.raises(ConfigurationError, match="file of root certificates"):
        TrustAnchors.from_pem(b"")
    with pytest.raises(ConfigurationError, match="file of intermediate certificates"):
        _trust(intermediates=b"nothing")


def test_a_revoked_server_is_told_so_by_the_alert() -> None:
    client = pqtls.ClientConnection(pki.client_config(trust=pki.trust_with_crl(pki.leaf("server"))))
    server = pqtls.ServerConnection(pki.server_config())
    server.receive_data(client.data_to_send())
    with pytest.raises(CertificateRefused) as caught:
        client.receive_data(server.data_to_send())
    assert caught.value.alert is Alert.CERTIFICATE_REVOKED
    with pytest.raises(pqtls.AlertReceived) as heard:
        server.receive_data(client.data_to_send())
    assert heard.value.alert is Alert.CERTIFICATE_REVOKED


def test_identifiers_tell_roots_intermediates_and_lists_apart() -> None:
    plain, again = _trust(), _trust()
    held = _trust(intermediates=_between().certificate_pem)
    listed = _trust(crls=crl(pki.leaf("server")))
    rooted = pki.trust(root(), _between())
    assert plain.identifier == again.identifier
    assert len({one.identifier for one in (plain, held, listed, rooted)}) == 4
    assert plain.anchors_identifier == listed.anchors_identifier
    assert len({one.anchors_identifier for one in (plain, held, rooted)}) == 3


def test_a_list_that_does_not_say_when_the_next_one_comes_is_refused() -> None:
    """`cryptography` makes no such list, so that this stands in for one that it has read."""
    name = pki.root().certificate.subject
    endless = cast("x509.CertificateRevocationList", SimpleNamespace(next_update_utc=None, issuer=name))
    with pytest.raises(ConfigurationError, match="nextUpdate"):
        trust_module._end_of_use(endless, datetime.timedelta(0))


# -- older lists ----------------------------------------------------------------------------------------------------


def _older(trust: TrustAnchors, held: TrustAnchors) -> str:
    with pytest.raises(OlderRevocationList) as caught:
        trust.check_follows(held)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_list_with_a_lower_number_does_not_follow_one_with_a_higher() -> None:
    seven = _trust(crls=crl(pki.leaf("server"), number=7))
    text = _older(_trust(crls=crl(number=6)), seven)
    assert text == (
        "the revocation list of CN=QBITEL Test Root has the number 6, but number 7 is in use already "
        "(RFC 5280 section 5.2.3); fetch the newest one"
    )
    for number in (7, 8, 1 << 150):
        _trust(crls=crl(number=number)).check_follows(seven)


def test_the_number_decides_and_not_the_time_that_a_clock_gave() -> None:
    seven = _trust(crls=crl(number=7, this_update=NOW))
    _trust(crls=crl(number=8, this_update=NOW - pki.DAY)).check_follows(seven)
    _older(_trust(crls=crl(number=6, this_update=NOW + SECOND)), seven)


def test_without_numbers_the_time_decides_and_a_number_is_not_given_up_again() -> None:
    plain = _trust(crls=crl(this_update=NOW))
    assert "is of 2026-06-01T11:59:59Z, but one of 2026-06-01T12:00:00Z" in _older(
        _trust(crls=crl(this_update=NOW - SECOND)), plain
    )
    plain.check_follows(plain)
    numbered = _trust(crls=crl(number=1, this_update=NOW - SECOND))
    numbered.check_follows(plain)
    assert "has no number" in _older(plain, numbered)


def test_of_several_lists_of_one_authority_the_newest_counts() -> None:
    held = _trust(crls=crl(number=7) + crl(number=5) + crl())
    assert [one.number for one in held.editions] == [7]
    _older(_trust(crls=crl(number=5) + crl(number=6)), held)
    _trust(crls=crl(number=9) + crl(number=1)).check_follows(held)


def test_each_authority_counts_for_itself() -> None:
    held_by = {"intermediates": _between().certificate_pem}
    held = _trust(crls=crl(number=3) + crl(signer=_between(), number=9), **held_by)
    _trust(crls=crl(number=4) + crl(signer=_between(), number=9), **held_by).check_follows(held)
    assert "CN=Between" in _older(_trust(crls=crl(number=4) + crl(signer=_between(), number=8), **held_by), held)


def test_a_list_may_vanish_only_with_its_authority() -> None:
    held = _trust(crls=crl(number=3) + crl(signer=_between(), number=9), intermediates=_between().certificate_pem)
    _trust(crls=crl(number=3)).check_follows(held)
    assert "list of CN=Between is gone" in _older(
        _trust(crls=crl(number=3), intermediates=_between().certificate_pem), held
    )
    _trust().check_follows(_trust())


def test_a_root_of_the_same_name_with_another_key_begins_anew() -> None:
    twin = make_certificate(issuer=None, subject="QBITEL Test Root", is_ca=True, path_length=1)
    held = _trust(crls=crl(number=7))
    TrustAnchors.from_pem(twin.certificate_pem, crls=crl(signer=twin, number=1)).check_follows(held)
    renewed = make_certificate(issuer=None, subject="QBITEL Test Root", is_ca=True, path_length=1, key=root().key)
    _older(TrustAnchors.from_pem(renewed.certificate_pem, crls=crl(signer=renewed, number=1)), held)


def test_two_authorities_that_share_a_key_count_for_themselves() -> None:
    renamed = make_certificate(issuer=None, subject="Renamed", is_ca=True, path_length=1, key=root().key)
    both = root().certificate_pem + renamed.certificate_pem
    held = TrustAnchors.from_pem(both, crls=crl(number=7) + crl(signer=renamed, number=3))
    TrustAnchors.from_pem(both, crls=crl(number=7) + crl(signer=renamed, number=4)).check_follows(held)
    assert "CN=Renamed" in _older(TrustAnchors.from_pem(both, crls=crl(number=8) + crl(signer=renamed, number=2)), held)
