"""Key-exchange groups as rows of a layout table.

A hybrid group's share and its secret are its parts' shares and secrets one behind the other, in the order of the row
(draft-ietf-tls-hybrid-design §3.2, §3.3). What a new group needs is a row.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from pqtls.errors import Alert, ProtocolViolation
from pqtls.provider import Agreement, Answer, CryptoProvider, InvalidShare, PrivateShare


@dataclass(frozen=True, slots=True)
class NamedGroup:
    """A NamedGroup code point (RFC 8446 §4.2.7) and what it is made of."""

    name: str
    code_point: int
    parts: tuple[Agreement, ...]
    client_share_size: int = field(init=False, repr=False, compare=False)  # bytes of the share in a ClientHello
    server_share_size: int = field(init=False, repr=False, compare=False)  # bytes of the share in a ServerHello

    def __post_init__(self) -> None:
        object.__setattr__(self, "client_share_size", sum(part.client_share_size for part in self.parts))
        object.__setattr__(self, "server_share_size", sum(part.server_share_size for part in self.parts))


# No code point is registered for this combination: 0xFEC4 is in the private-use range 0xFE00..0xFEFF (RFC 8446
# §4.2.7). Layout as X25519MLKEM768 has it: ML-KEM first, in shares and in the secret (docs/adr/0007-private-group.md).
X25519MLKEM1024: Final = NamedGroup("X25519MLKEM1024", 0xFEC4, (Agreement.ML_KEM_1024, Agreement.X25519))
# draft-ietf-tls-ecdhe-mlkem §4.
X25519MLKEM768: Final = NamedGroup("X25519MLKEM768", 0x11EC, (Agreement.ML_KEM_768, Agreement.X25519))
SECP384R1MLKEM1024: Final = NamedGroup("SecP384r1MLKEM1024", 0x11ED, (Agreement.SECP384R1, Agreement.ML_KEM_1024))
# draft-ietf-tls-mlkem.
MLKEM1024: Final = NamedGroup("MLKEM1024", 0x0202, (Agreement.ML_KEM_1024,))

GROUPS: Final = {group.code_point: group for group in (X25519MLKEM1024, X25519MLKEM768, SECP384R1MLKEM1024, MLKEM1024)}


@dataclass(frozen=True, slots=True)
class GroupPrivateShare:
    """The client's half of a key exchange in `group`."""

    group: NamedGroup
    parts: tuple[PrivateShare, ...]

    @property
    def public(self) -> bytes:
        """The key_exchange field of the client's KeyShareEntry."""
        return b"".join([part.public for part in self.parts])

    def finish(self, answer: bytes) -> bytes:
        """Return the shared secret from the server's key_exchange field; a bad one is an illegal_parameter."""
        _check_size(self.group, answer, self.group.server_share_size)
        secrets: list[bytes] = []
        position = 0
        for algorithm, part in zip(self.group.parts, self.parts, strict=True):
            piece = answer[position : position + algorithm.server_share_size]
            position += algorithm.server_share_size
            try:
                secrets.append(part.finish(piece))
            except InvalidShare as error:
                raise _invalid(self.group, error) from None
        return b"".join(secrets)


def generate(group: NamedGroup, provider: CryptoProvider) -> GroupPrivateShare:
    """Make the client's half: fresh keys for every part."""
    return GroupPrivateShare(group, tuple([provider.generate_share(part) for part in group.parts]))


def answer(group: NamedGroup, share: bytes, provider: CryptoProvider) -> Answer:
    """Make the server's half from the client's key_exchange field; a bad one is an illegal_parameter."""
    _check_size(group, share, group.client_share_size)
    answers: list[Answer] = []
    position = 0
    for algorithm in group.parts:
        piece = share[position : position + algorithm.client_share_size]
        position += algorithm.client_share_size
        try:
            answers.append(provider.answer_share(algorithm, piece))
        except InvalidShare as error:
            raise _invalid(group, error) from None
    return Answer(b"".join([part.share for part in answers]), b"".join([part.secret for part in answers]))


def _check_size(group: NamedGroup, share: bytes, size: int) -> None:
    if len(share) != size:
        raise ProtocolViolation(
            f"a {group.name} share has {size} bytes, the peer's has {len(share)}", Alert.ILLEGAL_PARAMETER
        )


def _invalid(group: NamedGroup, error: InvalidShare) -> ProtocolViolation:
    return ProtocolViolation(f"the peer's {group.name} share is not valid: {error}", Alert.ILLEGAL_PARAMETER)
