"""The API's TLS: who is let in, which certificate is shown, and what becomes of those who fail."""

from __future__ import annotations

import asyncio
import datetime

import aiohttp
import pytest

import aiotls
from certmgr.authority import WorkloadRequest, create_root, issue_workload
from certmgr.https import TlsConfigs
from certmgr.parts import Bundle
from mesh import names
from mesh.errors import UserError
from mesh.spiffe import SpiffeId
from pqtls import PROFILES, AlertReceived, ClientAuthentication, ClientConfig, Credential
from tests.certmgr.api_rig import QBITEL, rig, run, until
from tests.certmgr.stand_in import TRUST_DOMAIN, StandIn, utc_now


async def refused_with(made, config: ClientConfig) -> str:
    """Ask for a certificate with a connection that the server refuses; return the alert's name."""
    reader, writer = await made.raw(config)
    with pytest.raises(aiotls.PeerFailed) as failed:
        # The server judges the client's certificate after the client's handshake is complete.
        writer.write(b"GET /v1/bundle HTTP/1.1\r\nHost: a\r\n\r\n")
        await reader.read()
    error = failed.value.peer_error
    assert isinstance(error, AlertReceived)
    return error.alert.name


def failures(made, reason: str) -> float:
    """Counted when the peer has heard our alert, or has had a second to do so."""
    return made.count("qbitel_certmgr_tls_failures_total", reason=reason)


def test_peers_know_the_authority_by_its_own_identity():
    async def main():
        async with rig() as made:
            _, writer = await made.raw()
            assert writer.get_extra_info("peer_identity") == str(SpiffeId.of_authority(TRUST_DOMAIN))
            assert writer.get_extra_info("handshake").profile == "qbitel"

    run(main())


def test_a_revoked_certificate_ends_in_the_handshake_is_counted_and_written_down(caplog):
    async def main():
        async with rig() as made:
            web = made.service.workload("web")
            made.service.revoke(web.certificate)
            assert await refused_with(made, made.config(web)) == "CERTIFICATE_REVOKED"
            await until(lambda: failures(made, "revoked") == 1)
            await until(lambda: bool(made.service.journal))
            assert made.service.journal == [("revoked", "certificate", "127.0.0.1")]
            assert (await made.certificate(token="healthy")).status == 201

    run(main())
    assert "is revoked" in caplog.text


@pytest.mark.parametrize("what", ["expired", "foreign"])
def test_a_certificate_that_is_not_valid_ends_in_the_handshake(what):
    async def main():
        async with rig() as made:
            if what == "expired":
                workload = made.service.workload("web", now=utc_now() - datetime.timedelta(hours=48))
                alert, reason = "CERTIFICATE_EXPIRED", "expired"
            else:
                request = WorkloadRequest(spiffe_id=SpiffeId.parse(f"spiffe://{TRUST_DOMAIN}/ns/shop/sa/web"))
                workload = issue_workload(request, create_root("CN=Another root", utc_now()), utc_now())
                alert, reason = "UNKNOWN_CA", "unknown_root"
            assert await refused_with(made, made.config(workload)) == alert
            await until(lambda: failures(made, reason) == 1)
            assert (await made.certificate(token="healthy")).status == 201

    run(main())


def test_what_is_no_tls_is_counted_and_disturbs_nobody():
    async def main():
        async with rig() as made:
            reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await reader.read()
            writer.close()
            await until(lambda: failures(made, "not_tls") == 1)
            assert (await made.certificate(token="healthy")).status == 201

    run(main())


def test_a_new_certificate_of_ours_is_for_new_connections_and_old_ones_stay():
    async def main():
        async with rig() as made:
            old = made.client()
            assert (await made.ask("GET", "/v1/bundle", client=old)).status == 200
            made.service.own = made.service.workload("authority", spiffe_id=SpiffeId.of_authority(TRUST_DOMAIN))
            _, writer = await made.raw()
            completed = writer.get_extra_info("handshake")
            assert completed.peer_chain[0] == Credential.from_pem(*made.service.own_credential()).chain[0]
            assert (await made.ask("GET", "/v1/bundle", client=old)).status == 200

    run(main())


def test_at_the_end_connections_are_closed_in_order():
    async def main():
        async with rig() as made:
            reader, _ = await made.raw()
            await until(lambda: len(made.anonymous) == 1)
            ending = asyncio.create_task(made.site._runner.cleanup())
            assert await reader.read() == b""
            await ending
            with pytest.raises(aiohttp.ClientError):
                await made.ask("GET", "/v1/bundle")

    run(main())


# Configurations


class Source:
    """Credentials and bundle that a test changes."""

    def __init__(self) -> None:
        self.stand_in = StandIn()
        self.credential = self.stand_in.own_credential()
        self.published = self.stand_in.bundle()

    def own_credential(self) -> tuple[bytes, bytes]:
        return self.credential

    def bundle(self) -> Bundle:
        return self.published


def test_a_configuration_is_made_once_and_anew_when_something_changed():
    source = Source()
    configs = TlsConfigs(source, QBITEL, utc_now)
    first = configs()
    assert configs() is first
    assert first.client_authentication is ClientAuthentication.OPTIONAL
    assert first.tickets is None
    workload = source.stand_in.workload("web")
    source.stand_in.revoke(workload.certificate)
    source.published = source.stand_in.bundle()
    second = configs()
    assert second is not first
    assert len(second.trust.revoked) == 1
    source.credential = (workload.certificate_pem, workload.private_key_pem)
    assert configs().credential.identity == "spiffe://cluster.local/ns/shop/sa/web"


def test_what_cannot_be_used_leaves_what_was_and_is_said_once(caplog):
    source = Source()
    configs = TlsConfigs(source, QBITEL, utc_now)
    first = configs()
    source.published = Bundle({names.ROOTS_FILE: b"no PEM"}, "", "broken", "")
    assert configs() is first
    assert configs() is first
    assert caplog.text.count("new connections keep the certificates from before") == 1
    source.published = source.stand_in.bundle()
    assert configs() is not first


def test_an_authority_that_cannot_serve_a_profile_does_not_start():
    source = Source()
    source.published = Bundle({names.ROOTS_FILE: b"no PEM"}, "", "broken", "")
    with pytest.raises(UserError, match="the authority's own TLS"):
        TlsConfigs(source, (PROFILES["hybrid-l5"],), utc_now)
