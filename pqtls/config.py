"""What the owner of a connection gives it: credentials, trust, profile, clock.

All of it is immutable and shared by any number of connections, so what can be computed once is computed here.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from pqtls.certificates import Credential
from pqtls.chain_cache import ChainCache
from pqtls.errors import ConfigurationError
from pqtls.profiles import QBITEL, Profile
from pqtls.provider import CryptoProvider, default_provider
from pqtls.record import LARGE_FRAGMENT, MAX_FRAGMENT
from pqtls.sessions import Session
from pqtls.tickets import TicketKeeper
from pqtls.trust import TrustAnchors


def accept_any_identity(_uri: str) -> None:
    """The default of `accept_identity`: whoever the trust anchors vouch for is welcome."""


def ignore_secret(_line: str) -> None:
    """The default of `key_log`: secrets are told to nobody."""


# RFC 8449 §4: for TLS 1.3, 2^14 and the content-type byte; the least that may be asked for is 64.
_MAX_RECORD_SIZE_LIMIT: Final = MAX_FRAGMENT + 1
_MIN_RECORD_SIZE_LIMIT: Final = 64
# A large record and its content-type byte: what owners' buffers are made for. Of less than that use record_size_limit.
LARGE_RECORDS: Final = LARGE_FRAGMENT + 1


class ClientAuthentication(Enum):
    """What a server does with a client that shows no certificate (RFC 8446 §4.4.2.4). All are asked for one."""

    REQUIRED = "required"  # it is refused with certificate_required
    OPTIONAL = "optional"  # it is served as nobody: its identity is ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointConfig:
    """What client and server share.

    `profiles` are the acceptable ones in order of preference; no group may be in two of them, so that the group alone
    says which profile a connection has. `now` returns the present as an aware datetime: the engine reads no clock of
    its own. `accept_identity` is called with the peer's verified SPIFFE URI, in resumed handshakes too, and refuses it
    by raising `IdentityRefused`. `record_size_limit` (RFC 8449) is the largest inner plaintext that we take, in bytes.
    `large_record_size_limit`, where it is not None, asks for large records in its place
    (draft-ietf-tls-super-jumbo-record-limit-03, at a private code point): a peer that wants them, too, may put so many
    bytes into each record after the handshake, and needs no leave of ours to send less; any other sees no difference.
    `key_log` gets lines of the NSS key-log format, which lay the connection open: for development only.
    """

    trust: TrustAnchors
    now: Callable[[], datetime.datetime]
    profiles: tuple[Profile, ...] = (QBITEL,)
    accept_identity: Callable[[str], None] = accept_any_identity
    provider: CryptoProvider = field(default_factory=default_provider)
    chain_cache: ChainCache = field(default_factory=lambda: ChainCache(0))
    record_size_limit: int = _MAX_RECORD_SIZE_LIMIT
    large_record_size_limit: int | None = None
    key_log: Callable[[str], None] = ignore_secret

    def __post_init__(self) -> None:
        if not self.profiles:
            raise ConfigurationError("at least one profile is needed")
        groups = [group for profile in self.profiles for group in profile.groups]
        if len(set(groups)) != len(groups):
            raise ConfigurationError("a key-exchange group is in two of the profiles: name each profile once")
        if not _MIN_RECORD_SIZE_LIMIT <= self.record_size_limit <= _MAX_RECORD_SIZE_LIMIT:
            raise ConfigurationError(
                f"a record size limit of {self.record_size_limit} is not in "
                f"{_MIN_RECORD_SIZE_LIMIT}..{_MAX_RECORD_SIZE_LIMIT} (RFC 8449 section 4)"
            )
        if self.large_record_size_limit is not None:
            self._check_large_records(self.large_record_size_limit)

    def _check_large_records(self, limit: int) -> None:
        if not _MIN_RECORD_SIZE_LIMIT <= limit <= LARGE_RECORDS:
            raise ConfigurationError(
                f"a large record size limit of {limit} is not in {_MIN_RECORD_SIZE_LIMIT}..{LARGE_RECORDS}"
            )
        if self.record_size_limit != _MAX_RECORD_SIZE_LIMIT:
            # A client states one of them, so that a peer without the other would keep to none.
            raise ConfigurationError("record_size_limit and large_record_size_limit are both given: state one of them")

    def profile_of(self, group_code_point: int) -> Profile | None:
        """The acceptable profile that has this group."""
        for profile in self.profiles:
            for group in profile.groups:
                if group.code_point == group_code_point:
                    return profile
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig(EndpointConfig):
    """A client: `server_name` goes out as SNI when given; `alpn` in order of preference.

    `credential` is None for a client that has no certificate (yet): asked for one, it says so (RFC 8446 §4.4.2), and a
    server that requires one refuses it. It has to be written, so that nobody is anonymous by oversight; and a client
    that has one shows it or fails: it never goes on as nobody.

    A server that picks no ALPN protocol is accepted (and seen in HandshakeCompleted.alpn) unless `require_alpn`.
    `sessions` holds at most one session to resume; one that does not fit is left out, which costs a full handshake.
    """

    credential: Credential | None
    server_name: str | None = None
    alpn: tuple[bytes, ...] = ()
    require_alpn: bool = False
    sessions: tuple[Session, ...] = ()

    def __post_init__(self) -> None:
        # slots=True makes a new class, which the zero-argument super() does not know.
        EndpointConfig.__post_init__(self)
        if self.credential is not None:
            check_credential(self.credential, self.profiles)
        elif self.sessions:
            # A ticket stands for the certificate of an earlier connection: whoever has none here means to be nobody.
            raise ConfigurationError("a client without a credential has no session to resume: leave `sessions` empty")
        check_alpn(self.alpn)
        if self.server_name is not None and not (self.server_name.isascii() and 0 < len(self.server_name) <= 255):
            # RFC 6066 §3: ASCII (A-labels); DNS names have at most 255 bytes.
            raise ConfigurationError(f"the server name {self.server_name[:64]!r} is not 1 to 255 ASCII characters")
        if len(self.sessions) > 1:
            raise ConfigurationError("a client offers at most one session")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig(EndpointConfig):
    """A server, which always asks for a client certificate, or takes a ticket that stands for one.

    `client_authentication` says what becomes of a client that shows none. Where it is OPTIONAL, such a client completes
    the handshake with the peer_identity "" in HandshakeCompleted, gets no tickets, and `accept_identity` is not called:
    there is no identity to accept. An owner that chooses OPTIONAL therefore looks at peer_identity before it grants
    anything. A certificate that is shown is verified as strictly as ever, and refused if it is not perfect: nobody
    becomes anonymous by showing a bad one.

    A client that offers ALPN of which nothing is in `alpn` is refused with no_application_protocol (RFC 7301 §3.2);
    one that offers none is refused only where `require_alpn` says so. Without `tickets` nothing is resumed.
    """

    credential: Credential
    client_authentication: ClientAuthentication = ClientAuthentication.REQUIRED
    alpn: tuple[bytes, ...] = ()
    require_alpn: bool = False
    tickets: TicketKeeper | None = None

    def __post_init__(self) -> None:
        EndpointConfig.__post_init__(self)
        check_credential(self.credential, self.profiles)
        check_alpn(self.alpn)


def check_credential(credential: Credential, profiles: tuple[Profile, ...]) -> None:
    """Each profile that may be negotiated must allow the signatures that the credential's key makes."""
    for profile in profiles:
        if credential.signature_scheme not in profile.signature_schemes:
            allowed = ", ".join(scheme.name for scheme in profile.signature_schemes)
            raise ConfigurationError(
                f"the certificate's key makes {credential.signature_scheme.name} signatures, "
                f"but profile {profile.name} allows only {allowed}"
            )


def check_alpn(protocols: tuple[bytes, ...]) -> None:
    """RFC 7301 §3.1: each name has 1 to 255 bytes; and all of them must fit the extension."""
    if not all(1 <= len(name) <= 255 for name in protocols) or sum(len(name) + 1 for name in protocols) > 2**16 - 3:
        raise ConfigurationError("an ALPN protocol name has 1 to 255 bytes, and all together at most 65,533")
