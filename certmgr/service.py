"""The running authority: the state, the audit log and the pure parts, put together (ADR 12).

Several replicas run on one store. What all of them do is issue; what only the leader does is in certmgr/upkeep.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA87PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM1024PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_public_key

from certmgr.authority import WorkloadRequest, certify_workload
from certmgr.barring import check_not_barred
from certmgr.kem import certify_kem
from certmgr.ledger import Ledger
from certmgr.own_credential import OwnCredential
from certmgr.parts import Bundle, Issued, Parts
from certmgr.peers import Peer
from certmgr.proofs import Method, ProvenIdentity, Reason, Refused
from certmgr.requests import CheckedRequest, check_csr
from certmgr.shared_state import SharedState
from certmgr.state import AuthorityState, Generation
from certmgr.store import StoreUnavailable
from certmgr.tokens import find_token, spend_token
from certmgr.upkeep import Upkeep
from mesh.errors import UserError
from mesh.spiffe import SpiffeId

# Of signing again because the root's rotation went on meanwhile: a handful is far more than ever happens in a row.
_ATTEMPTS: Final = 8
# Seconds between two looks at what other replicas wrote down, where nothing asks for one sooner.
_PEERS_PAUSE: Final = 30.0

_log = logging.getLogger("qbitel.certmgr")


@dataclass(frozen=True, slots=True)
class IssuedToPeer:
    """What a peer gets: PEM, the leaf first and then the intermediates."""

    certificate: x509.Certificate
    certificate_pem: bytes
    kem_certificate_pem: bytes | None
    generation: str


class AuthorityService:
    """Implements parts.Authority, and what the API asks beside it."""

    def __init__(self, parts: Parts, shared: SharedState, *, now: Callable[[], datetime.datetime]) -> None:
        """Use `open()`."""
        self.parts = parts
        self.now = now
        self.ledger = Ledger(parts.store, parts.replica, now=now, after_write=shared.confirm)
        self._shared = shared
        self._own: OwnCredential | None = None

    @classmethod
    async def open(cls, parts: Parts, *, now: Callable[[], datetime.datetime]) -> AuthorityService:
        """Read the state. Raises UserError where the store has no authority, StoreUnavailable where it is away."""
        service = cls(parts, await SharedState.open(parts.store), now=now)
        await service.ledger.open()
        return service

    # -- the state ----------------------------------------------------------------------------------------------

    @property
    def state(self) -> AuthorityState:
        """The state as this replica knows it."""
        return self._shared.present

    @property
    def trust_domain(self) -> str:
        """See parts.Authority."""
        return self.state.trust_domain

    def bundle(self) -> Bundle:
        """See parts.Authority."""
        return self._shared.bundle

    async def next_bundle(self, after: str) -> Bundle:
        """See parts.Authority."""
        return await self._shared.next_bundle(after)

    def is_revoked(self, certificate: x509.Certificate) -> bool:
        """See parts.Authority."""
        return self._shared.is_revoked(certificate)

    async def change(self, transform: Callable[[AuthorityState], AuthorityState | None]) -> bool:
        """See SharedState.change."""
        return await self._shared.change(transform)

    async def run(self) -> None:
        """Follow the store, do the leader's chores and those of the parts, until cancelled. Raises what is a bug."""
        upkeep = Upkeep(self, self.now, self.parts.is_leader)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._shared.follow())
            tasks.create_task(self._follow_peers())
            tasks.create_task(upkeep.run())
            for chore in self.parts.chores:
                tasks.create_task(_whole(chore(self)))

    async def _follow_peers(self) -> None:
        """Take up whom others certified, and forget what has ended."""
        while True:
            await asyncio.sleep(_PEERS_PAUSE)
            try:
                await self.ledger.refresh()
            except (StoreUnavailable, UserError) as error:
                _log.warning("the list of peers cannot be read, what is known stays in use: %s", error)

    # -- certificates -------------------------------------------------------------------------------------------

    async def issue(
        self,
        proven: ProvenIdentity,
        csr: bytes,
        *,
        instance: str,
        anchors: str,
        kem_public_key: bytes | None,
        shown: str = "",
    ) -> IssuedToPeer:
        """Certify the key of `csr` (PEM) for whom the proof proves, and `kem_public_key` (PEM) beside it.

        `anchors` are those that the peer trusts as it asks, `shown` is the serial number of the certificate that it
        asks with, in lower-case hexadecimal digits. Raises Refused, StoreUnavailable, UserError.
        """
        self._check_entitled(proven)
        if shown:
            # Known before the new one is written down, whichever replica issued it: so that the new one is later. Where
            # it cannot be found, which _follow_peers says, both count.
            with contextlib.suppress(UserError):
                peer = await self.ledger.find(str(proven.spiffe_id), instance, shown)
                if peer is not None and self.ledger.is_superseded(peer):
                    await self.ledger.record(_contested(peer))
        public_key = check_csr(csr, proven).public_key
        kem_key = None if kem_public_key is None else _read_kem_key(kem_public_key)
        request = self._request(proven)
        issued = await self._sign(request, public_key, instance, anchors)
        kem = None if kem_key is None else self._certify(request, kem_key, self._generation(issued.generation))
        await self._write_down(issued, proven, instance)
        chain = (issued.certificate, *issued.intermediates)
        return IssuedToPeer(
            certificate=issued.certificate,
            certificate_pem=b"".join(one.public_bytes(Encoding.PEM) for one in chain),
            kem_certificate_pem=None if kem is None else kem.public_bytes(Encoding.PEM),
            generation=issued.generation,
        )

    async def certify(
        self,
        request: WorkloadRequest,
        public_key: MLDSA87PublicKey | MLKEM1024PublicKey,
        instance: str,
        *,
        any_trust_domain: bool = False,
    ) -> Issued:
        """See parts.Authority. `any_trust_domain` is for who may use the authority's key: its own command line."""
        if request.spiffe_id.trust_domain != self.trust_domain and not any_trust_domain:
            raise UserError(f"{request.spiffe_id} is not of the trust domain {self.trust_domain}, which is ours")
        check_not_barred(self.state, request.spiffe_id)
        if isinstance(public_key, MLKEM1024PublicKey):
            # It authenticates nobody, so that nobody has to trust its issuer in a handshake: it is no peer.
            generation = self.state.signer
            certificate = self._certify(request, public_key, generation)
            issued = Issued(certificate, (generation.issuer.certificate,), generation.name)
        else:
            issued = await self._sign(request, public_key, instance, "")
        await self._write_down(issued, None, instance, request.spiffe_id)
        return issued

    async def acknowledge(self, identity: str, instance: str, anchors: str, serial: str = "") -> None:
        """See parts.Authority. Refused where nobody knows such a peer."""
        peer = await self.ledger.find(identity, instance, serial)
        if peer is None:
            raise Refused(
                Reason.NOT_ENTITLED,
                f"no certificate of {identity} is known for the instance {instance!r}; ask for one first",
            )
        # Judged before anything is awaited: what the same holder shows next must not count as shown before.
        is_late = self.ledger.is_superseded(peer)
        if anchors != self.bundle().anchors:
            await self._shared.confirm()  # it may have heard of a newer round than we have
        said = peer.acknowledging(self._round_of(anchors))
        if is_late:
            said = _contested(said)
        if said != peer:
            await self.ledger.record(said)

    def _round_of(self, anchors: str) -> int:
        """The round that these are the anchors of; 0 where that is not the present one, which nobody asks about."""
        return self.state.round if anchors == self.bundle().anchors else 0

    async def redeem(self, token: str, check: Callable[[ProvenIdentity], CheckedRequest]) -> ProvenIdentity:
        """Spend a bootstrap token, unless `check` raises: a request that is wrong must not cost its asker the token.

        For a short time the key that it was spent for may redeem it again (tokens.spend_token). Raises Refused,
        StoreUnavailable, and what `check` raises.
        """
        found: list[ProvenIdentity] = []

        def spend(state: AuthorityState) -> AuthorityState:
            now = self.now()
            waiting = find_token(state, token, now)
            check_not_barred(state, waiting.spiffe_id)
            proven = ProvenIdentity(spiffe_id=waiting.spiffe_id, method=Method.BOOTSTRAP, dns_names=waiting.dns_names)
            left = spend_token(state, waiting, check(proven).key_digest, now)
            found[:] = [proven]
            return left

        await self.change(spend)
        return found[0]

    async def note_refusal(self, refused: Refused, *, method: Method | None, source: str) -> None:
        """Write a refusal into the audit log. Raises StoreUnavailable."""
        await self.parts.journal.append(
            {
                "time": _shown(self.now()),
                "event": "refused",
                "reason": refused.reason.slug,
                "method": None if method is None else method.value,
                "identity": None if refused.identity is None else str(refused.identity),
                "source": source,
                "message": str(refused),
            }
        )

    def own_credential(self) -> tuple[bytes, bytes]:
        """The API's own chain and key, PEM."""
        now = self.now()
        if self._own is None or not self._own.serves(self.state, now):
            self._own = OwnCredential.make(self.state, now)
        return self._own.chain, self._own.key

    def _check_entitled(self, proven: ProvenIdentity) -> None:
        identity = proven.spiffe_id
        if identity.trust_domain != self.trust_domain:
            raise Refused(
                Reason.FOREIGN_TRUST_DOMAIN,
                f"{identity} is not of the trust domain {self.trust_domain}, which is ours",
                identity=identity,
            )
        if identity == SpiffeId.of_authority(self.trust_domain):
            raise Refused(Reason.RESERVED_IDENTITY, f"{identity} is the authority's own identity", identity=identity)
        check_not_barred(self.state, identity)

    def _request(self, proven: ProvenIdentity) -> WorkloadRequest:
        return WorkloadRequest(
            spiffe_id=proven.spiffe_id, dns_names=proven.dns_names, validity=self.state.leaf_validity
        )

    async def _sign(
        self, request: WorkloadRequest, public_key: MLDSA87PublicKey, instance: str, anchors: str
    ) -> Issued:
        """Sign, and return when the peer is written down and the signature is still what the newest state wants.

        The state is read again behind each write of the ledger (SharedState.confirm): a leader that steps the rotation
        on after that has read this peer too, and so has whoever bars the identity and then revokes what it holds.
        """
        self.ledger.check_room(str(request.spiffe_id), instance)
        for _ in range(_ATTEMPTS):
            generation, now = self.state.signer, self.now()
            certificate = certify_workload(request, public_key, generation.issuer, now)
            peer = Peer(
                identity=str(request.spiffe_id),
                instance=instance,
                generation=generation.name,
                serial=f"{certificate.serial_number:x}",
                issued_at=now,
                not_after=certificate.not_valid_after_utc,
                acknowledged=self._round_of(anchors),
            )
            await self.ledger.record(peer)
            check_not_barred(self.state, request.spiffe_id)
            # The intermediate too: one that was revoked meanwhile has another in its place.
            if self.state.signer.issuer.certificate == generation.issuer.certificate:
                return Issued(certificate, (generation.issuer.certificate,), generation.name)
        raise StoreUnavailable("the root's rotation keeps going on; try again")

    def _certify(
        self, request: WorkloadRequest, public_key: MLKEM1024PublicKey, generation: Generation
    ) -> x509.Certificate:
        return certify_kem(request, public_key, generation.issuer, self.now())

    def _generation(self, name: str) -> Generation:
        return next(one for one in self.state.generations if one.name == name)

    async def _write_down(
        self, issued: Issued, proven: ProvenIdentity | None, instance: str, identity: SpiffeId | None = None
    ) -> None:
        certificate = issued.certificate
        await self.parts.journal.append(
            {
                "time": _shown(self.now()),
                "event": "issued",
                "identity": str(proven.spiffe_id if proven else identity),
                "instance": instance,
                "method": proven.method.value if proven else None,
                "serial": f"{certificate.serial_number:x}",
                "generation": issued.generation,
                "not_after": _shown(certificate.not_valid_after_utc),
            }
        )


def _contested(peer: Peer) -> Peer:
    _log.warning(
        "%s shows a certificate that it has replaced: two processes have the name %r, and a rotation waits for both. "
        "Give each a name of its own",
        peer.identity,
        peer.instance,
    )
    return peer.contesting()


async def _whole(work: Awaitable[None]) -> None:
    await work


def _read_kem_key(pem: bytes) -> MLKEM1024PublicKey:
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, MLKEM1024PublicKey):
        raise Refused(Reason.BAD_REQUEST, "kem_public_key is no ML-KEM-1024 public key in PEM form")
    return key


def _shown(moment: datetime.datetime) -> str:
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
