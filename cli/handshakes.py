"""A client and a server of the engine in one process, for measuring: nothing but pqtls between them."""

from __future__ import annotations

import dataclasses
import datetime
from dataclasses import dataclass

import pqtls
from certmgr.authority import CertificateAndKey, WorkloadRequest, create_root, issue_workload
from mesh.spiffe import SpiffeId
from pqtls.profiles import Profile
from pqtls.provider import CryptoProvider


@dataclass(frozen=True, slots=True)
class Identity:
    """The root, and the one leaf that both ends use."""

    root: CertificateAndKey
    leaf: CertificateAndKey


def make_identity(now: datetime.datetime) -> Identity:
    """A fresh root with one leaf, both ML-DSA-87."""
    root = create_root("CN=benchmark", now)
    spiffe_id = SpiffeId.parse("spiffe://cluster.local/ns/bench/sa/both")
    return Identity(root, issue_workload(WorkloadRequest(spiffe_id=spiffe_id), root, now))


def utc_now() -> datetime.datetime:
    """The clock of the measured connections."""
    return datetime.datetime.now(datetime.UTC)


class EnginePair:
    """Makes handshakes between a client and a server that share everything but their roles.

    `cached_chains` is the capacity of the cache of verified chains: 0 validates every chain anew. Without `tickets`
    nothing is resumed, and nothing is spent on it.
    """

    def __init__(
        self,
        identity: Identity,
        profile: Profile,
        provider: CryptoProvider,
        *,
        cached_chains: int = 0,
        tickets: bool = False,
    ) -> None:
        credential = pqtls.Credential.from_pem(identity.leaf.certificate_pem, identity.leaf.private_key_pem)
        trust = pqtls.TrustAnchors.from_pem(identity.root.certificate_pem)
        cache = pqtls.ChainCache(cached_chains)
        keeper = pqtls.TicketKeeper(provider) if tickets else None
        self._server = pqtls.ServerConfig(
            credential=credential,
            trust=trust,
            now=utc_now,
            profiles=(profile,),
            provider=provider,
            chain_cache=cache,
            tickets=keeper,
        )
        self._client = pqtls.ClientConfig(
            credential=credential, trust=trust, now=utc_now, profiles=(profile,), provider=provider, chain_cache=cache
        )
        self._sessions: list[pqtls.Session] = []
        self.sent = (0, 0)  # bytes from client to server and back in the last handshake, tickets included

    def full(self) -> tuple[pqtls.ClientConnection, pqtls.ServerConnection]:
        """A handshake with certificates on both sides."""
        return self._handshake(self._client, resumed=False)

    def resumed(self) -> tuple[pqtls.ClientConnection, pqtls.ServerConnection]:
        """A handshake that resumes a session of an earlier one, which is made first where there is none."""
        if not self._sessions:
            self.full()
        if not self._sessions:
            raise pqtls.MisuseError("there is nothing to resume: the pair was made without tickets")
        return self._handshake(dataclasses.replace(self._client, sessions=(self._sessions.pop(),)), resumed=True)

    def _handshake(
        self, config: pqtls.ClientConfig, *, resumed: bool
    ) -> tuple[pqtls.ClientConnection, pqtls.ServerConnection]:
        client, server = pqtls.ClientConnection(config), pqtls.ServerConnection(self._server)
        to_server = to_client = 0
        while not (client.handshake_complete and server.handshake_complete and not server.has_data_to_send):
            data = client.data_to_send()
            to_server += len(data)
            server.receive_data(data)
            data = server.data_to_send()
            to_client += len(data)
            client.receive_data(data)
        self.sent = (to_server, to_client)
        for event in client.events():
            match event:
                case pqtls.HandshakeCompleted(resumed=was) if was is not resumed:
                    raise pqtls.MisuseError("what was measured is not what was meant: a session was not resumed")
                case pqtls.SessionReceived(session=session):
                    self._sessions = [session]
        return client, server
