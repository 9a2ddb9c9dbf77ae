"""What a server reads out of a ClientHello, and what it selects from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pqtls import extensions as ext
from pqtls.config import ServerConfig
from pqtls.errors import Alert, NegotiationRefused, ProtocolViolation
from pqtls.extensions import ExtensionType, OfferedPsks
from pqtls.groups import NamedGroup
from pqtls.messages import ClientHello
from pqtls.profiles import Profile
from pqtls.record import MAX_FRAGMENT
from pqtls.suites import CipherSuite

# RFC 8446 §9.2: what a ClientHello that authenticates with certificates and (EC)DHE must carry.
_MANDATORY: Final = (
    ExtensionType.SUPPORTED_GROUPS,
    ExtensionType.KEY_SHARE,
    ExtensionType.SIGNATURE_ALGORITHMS,
)
# RFC 8446 §4.2.3: what restricts the signatures that we make, and those on our chain.
_SIGNATURE_SCHEMES: Final = (
    (ExtensionType.SIGNATURE_ALGORITHMS, "signature_algorithms"),
    (ExtensionType.SIGNATURE_ALGORITHMS_CERT, "signature_algorithms_cert"),
)
# RFC 8446 §4.1.2: what a second ClientHello may change.
_CHANGEABLE_BY_RETRY: Final = frozenset(
    {
        ExtensionType.KEY_SHARE,
        ExtensionType.EARLY_DATA,
        ExtensionType.COOKIE,
        ExtensionType.PRE_SHARED_KEY,
        ExtensionType.PADDING,
    }
)
# RFC 8446 appendix D.5: a hello that says so must be refused, whatever else it offers.
_SSL_3_0: Final = 0x0300
_NO_PSKS: Final = OfferedPsks((), (), 0)


@dataclass(frozen=True, slots=True)
class ClientOffer:
    """A ClientHello that passed the checks of form, and what was selected from it."""

    hello: ClientHello
    profile: Profile
    group: NamedGroup
    suite: CipherSuite
    shares: dict[int, bytes]
    alpn: bytes | None
    server_name: str | None
    authorities: tuple[bytes, ...]
    record_size_limit: int
    states_record_size_limit: bool
    large_record_size_limits: tuple[int, int] | None  # theirs and ours, where both ends want large records
    wants_tickets: bool
    psks: OfferedPsks


def read_offer(hello: ClientHello, config: ServerConfig) -> ClientOffer:
    """Check the form of a ClientHello and select a profile, its group and its suite; raise PeerError otherwise."""
    extensions = hello.extensions
    _check_version(hello)
    # §4.1.2: in TLS 1.3 exactly one method, "null".
    if hello.compression_methods != b"\x00":
        raise ProtocolViolation("the client offers compression", Alert.ILLEGAL_PARAMETER)
    missing = [kind.name.lower() for kind in _MANDATORY if kind not in extensions]
    if missing:
        raise ProtocolViolation(f"the ClientHello lacks {', '.join(missing)}", Alert.MISSING_EXTENSION)
    psks, wants_tickets = _read_psks(extensions)
    groups = ext.read_code_points(extensions[ExtensionType.SUPPORTED_GROUPS], "supported_groups")
    shares = _read_shares(extensions, groups)
    profile, group, suite = _select_profile(hello, groups, shares, config)
    limit = _read_record_size_limit(extensions)
    _check_signature_schemes(extensions, config)
    return ClientOffer(
        hello=hello,
        profile=profile,
        group=group,
        suite=suite,
        shares=shares,
        alpn=_select_alpn(extensions, config),
        server_name=_read_server_name(extensions),
        authorities=_read_authorities(extensions),
        record_size_limit=limit,
        states_record_size_limit=ExtensionType.RECORD_SIZE_LIMIT in extensions,
        large_record_size_limits=_read_large_record_size_limits(extensions, config),
        wants_tickets=wants_tickets,
        psks=psks,
    )


def check_second_hello(first: ClientHello, second: ClientHello) -> None:
    """Demand that a ClientHello after a retry is the first one but for what may change (§4.1.2)."""
    if (
        (first.legacy_version, first.random, first.session_id)
        != (second.legacy_version, second.random, second.session_id)
        or (first.cipher_suites, first.compression_methods) != (second.cipher_suites, second.compression_methods)
        or _fixed(first) != _fixed(second)
        or ExtensionType.EARLY_DATA in second.extensions
        or ExtensionType.COOKIE in second.extensions  # we sent none
    ):
        raise ProtocolViolation(
            "the second ClientHello differs from the first where it must not", Alert.ILLEGAL_PARAMETER
        )


def _fixed(hello: ClientHello) -> list[tuple[int, bytes]]:
    """The extensions that may not change, in their order, which may not change either."""
    return [(kind, content) for kind, content in hello.extensions.items() if kind not in _CHANGEABLE_BY_RETRY]


def _check_version(hello: ClientHello) -> None:
    if hello.legacy_version <= _SSL_3_0:
        raise NegotiationRefused("the client's hello is of SSL 3.0 or older", Alert.PROTOCOL_VERSION)
    versions = hello.extensions.get(ExtensionType.SUPPORTED_VERSIONS)
    if versions is None or ext.TLS_1_3 not in ext.read_client_versions(versions):
        raise NegotiationRefused("the client does not speak TLS 1.3", Alert.PROTOCOL_VERSION)


def _select_profile(
    hello: ClientHello, groups: tuple[int, ...], shares: dict[int, bytes], config: ServerConfig
) -> tuple[Profile, NamedGroup, CipherSuite]:
    """The first of our profiles that the client can speak, and of its groups rather one that has a share."""
    has_a_group = False
    for profile in config.profiles:
        known = [group for group in profile.groups if group.code_point in groups]
        suites = [suite for suite in profile.cipher_suites if suite.code_point in hello.cipher_suites]
        has_a_group = has_a_group or bool(known)
        if known and suites:
            group = next((group for group in known if group.code_point in shares), known[0])
            return profile, group, suites[0]
    raise NegotiationRefused(_nothing_in_common(groups, config, has_a_group=has_a_group))


def _nothing_in_common(groups: tuple[int, ...], config: ServerConfig, *, has_a_group: bool) -> str:
    if has_a_group:
        wanted = "; ".join(
            f"{profile.name} ({', '.join(suite.name for suite in profile.cipher_suites)})"
            for profile in config.profiles
        )
        return f"the client offers no cipher suite of profile {wanted}"
    wanted = ", ".join(f"{profile.name} ({', '.join(g.name for g in profile.groups)})" for profile in config.profiles)
    offered = ", ".join(f"{code_point:#06x}" for code_point in groups[:16])
    return f"the client offers the groups {offered}; we take only profile {wanted}"


def _check_signature_schemes(extensions: ext.Extensions, config: ServerConfig) -> None:
    own = config.credential.signature_scheme
    for kind, name in _SIGNATURE_SCHEMES:
        content = extensions.get(kind)
        if content is not None and own.code_point not in ext.read_code_points(content, name):
            raise NegotiationRefused(f"the client does not take {own.name} ({kind.name.lower()})")


def _read_shares(extensions: ext.Extensions, groups: tuple[int, ...]) -> dict[int, bytes]:
    entries = ext.read_client_key_shares(extensions[ExtensionType.KEY_SHARE])
    remaining = iter(groups)
    for entry in entries:
        # §4.2.8: each share is of a group in supported_groups, and in the same order.
        if entry.group not in remaining:
            raise ProtocolViolation(
                f"the share of group {entry.group:#06x} is not in supported_groups, or not in its order",
                Alert.ILLEGAL_PARAMETER,
            )
    return {entry.group: entry.key_exchange for entry in entries}


def _select_alpn(extensions: ext.Extensions, config: ServerConfig) -> bytes | None:
    content = extensions.get(ExtensionType.ALPN)
    offered = () if content is None else ext.read_alpn(content)
    for protocol in config.alpn:
        if protocol in offered:
            return protocol
    if config.require_alpn or (offered and config.alpn):
        raise NegotiationRefused(
            "the client offers no application protocol that we speak", Alert.NO_APPLICATION_PROTOCOL
        )
    return None


def _read_server_name(extensions: ext.Extensions) -> str | None:
    content = extensions.get(ExtensionType.SERVER_NAME)
    return None if content is None else ext.read_server_name(content)


def _read_authorities(extensions: ext.Extensions) -> tuple[bytes, ...]:
    content = extensions.get(ExtensionType.CERTIFICATE_AUTHORITIES)
    return () if content is None else ext.read_authorities(content)


def _read_record_size_limit(extensions: ext.Extensions) -> int:
    content = extensions.get(ExtensionType.RECORD_SIZE_LIMIT)
    return MAX_FRAGMENT + 1 if content is None else ext.read_record_size_limit(content)


def _read_large_record_size_limits(extensions: ext.Extensions, config: ServerConfig) -> tuple[int, int] | None:
    content = extensions.get(ExtensionType.LARGE_RECORD_SIZE_LIMIT)
    if content is None or config.large_record_size_limit is None:
        return None
    return ext.read_large_record_size_limit(content), config.large_record_size_limit


def _read_psks(extensions: ext.Extensions) -> tuple[OfferedPsks, bool]:
    """What the client offers to resume, and whether tickets are of any use to it (§4.2.9, §4.2.11)."""
    modes = extensions.get(ExtensionType.PSK_KEY_EXCHANGE_MODES)
    wants_tickets = modes is not None and ext.PSK_DHE_KE in ext.read_psk_modes(modes)
    content = extensions.get(ExtensionType.PRE_SHARED_KEY)
    if content is None:
        return _NO_PSKS, wants_tickets
    if next(reversed(extensions)) != ExtensionType.PRE_SHARED_KEY:
        raise ProtocolViolation("pre_shared_key is not the last extension", Alert.ILLEGAL_PARAMETER)
    if modes is None:
        raise ProtocolViolation("pre_shared_key without psk_key_exchange_modes", Alert.MISSING_EXTENSION)
    psks = ext.read_offered_psks(content)
    return (psks if wants_tickets else _NO_PSKS), wants_tickets
