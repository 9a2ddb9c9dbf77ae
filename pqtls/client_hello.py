"""The ClientHello that a client sends, first and again after a HelloRetryRequest, and what it checks in the answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from pqtls import extensions as ext
from pqtls.config import ClientConfig
from pqtls.errors import Alert, CertificateRefused, IdentityRefused, ProtocolViolation
from pqtls.extensions import ExtensionType
from pqtls.groups import GroupPrivateShare, NamedGroup, generate
from pqtls.key_schedule import EarlySecret
from pqtls.messages import DOWNGRADE_SENTINELS, LEGACY_VERSION, ClientHello, ServerHello
from pqtls.profiles import Profile
from pqtls.sessions import Session
from pqtls.suites import CipherSuite
from pqtls.transcript import Transcript
from pqtls.verify import verify_resumption
from pqtls.wire import uint16, vector

_NO_COMPRESSION: Final = b"\x00"


@dataclass(frozen=True, slots=True)
class OfferedSession:
    """A session, and what the key schedule begins with where the server takes it up."""

    session: Session
    early_secret: EarlySecret


@dataclass(frozen=True, slots=True)
class Offer:
    """A ClientHello as it went out, with the secrets that belong to it. It offers one session or none."""

    hello: ClientHello
    raw: bytes
    share: GroupPrivateShare
    sessions: tuple[OfferedSession, ...]


def first_offer(config: ClientConfig) -> Offer:
    """The first ClientHello: a share for the group that the first profile prefers, and the session that fits."""
    share = generate(config.profiles[0].groups[0], config.provider)
    sessions = tuple(session for session in config.sessions if _is_acceptable(session, config))
    suites = [suite.code_point for profile in config.profiles for suite in profile.cipher_suites]
    hello = ClientHello(
        legacy_version=LEGACY_VERSION,
        random=config.provider.random_bytes(32),
        session_id=b"",  # no middlebox compatibility mode (RFC 8446 appendix D.4): nothing between two pods needs it
        cipher_suites=tuple(dict.fromkeys(suites)),
        compression_methods=_NO_COMPRESSION,
        extensions=_extensions(config, share),
    )
    return _with_session(config, hello, share, sessions, ())


def second_offer(config: ClientConfig, first: Offer, retry: ServerHello, suite: CipherSuite, raw_retry: bytes) -> Offer:
    """The ClientHello that a HelloRetryRequest asks for (§4.1.2); what would change nothing is refused (§4.1.4)."""
    offered = frozenset(first.hello.extensions) | {ExtensionType.COOKIE}
    ext.check_response(retry.extensions, ext.ALLOWED_IN_RETRY, offered, "HelloRetryRequest")
    share = first.share
    extensions = {kind: body for kind, body in first.hello.extensions.items() if kind != ExtensionType.PRE_SHARED_KEY}
    unchanged = dict(extensions)
    if ExtensionType.KEY_SHARE in retry.extensions:
        group = _asked_group(retry.extensions[ExtensionType.KEY_SHARE], config, first.share)
        share = generate(group, config.provider)
        extensions[ExtensionType.KEY_SHARE] = _key_share(share)
    if ExtensionType.COOKIE in retry.extensions:
        cookie = retry.extensions[ExtensionType.COOKIE]
        ext.read_cookie(cookie)
        extensions[ExtensionType.COOKIE] = cookie
    if extensions == unchanged:
        raise ProtocolViolation("a HelloRetryRequest that changes nothing", Alert.ILLEGAL_PARAMETER)
    # §4.1.4: a session that the server's cipher suite rules out is left out.
    sessions = tuple(one.session for one in first.sessions if one.session.facts.suite is suite)
    hello = replace(first.hello, extensions=extensions)
    return _with_session(config, hello, share, sessions, (_first_hash(first, suite), raw_retry))


def _first_hash(first: Offer, suite: CipherSuite) -> bytes:
    """What stands for the first ClientHello in the transcript after a retry (§4.4.1)."""
    return Transcript.message_hash(suite.hash_name, first.raw)


def _is_acceptable(session: Session, config: ClientConfig) -> bool:
    """Whether the session's server would be accepted today; if not, a full handshake finds out what is wrong."""
    if not session.is_usable(config.now()):
        return False
    profile = next((one for one in config.profiles if one.name == session.facts.profile), None)
    if profile is None:
        return False
    try:
        verify_resumption(session.facts, profile, config.trust, config.now())
        config.accept_identity(session.facts.identity)
    except (CertificateRefused, IdentityRefused):
        return False
    return True


def _extensions(config: ClientConfig, share: GroupPrivateShare) -> ext.Extensions:
    groups = [group.code_point for profile in config.profiles for group in profile.groups]
    schemes = [scheme.code_point for profile in config.profiles for scheme in profile.signature_schemes]
    extensions: ext.Extensions = {}
    if config.server_name is not None:
        extensions[ExtensionType.SERVER_NAME] = ext.write_server_name(config.server_name)
    extensions[ExtensionType.SUPPORTED_GROUPS] = ext.write_code_points(tuple(groups))
    extensions[ExtensionType.SIGNATURE_ALGORITHMS] = ext.write_code_points(tuple(dict.fromkeys(schemes)))
    extensions[ExtensionType.CERTIFICATE_AUTHORITIES] = ext.write_authorities(config.trust.names)
    if config.alpn:
        extensions[ExtensionType.ALPN] = ext.write_alpn(config.alpn)
    if config.large_record_size_limit is None:
        extensions[ExtensionType.RECORD_SIZE_LIMIT] = uint16(config.record_size_limit)
    else:
        # At most one of the two (draft-ietf-tls-super-jumbo-record-limit-03 §3).
        extensions[ExtensionType.LARGE_RECORD_SIZE_LIMIT] = ext.write_large_record_size_limit(
            config.large_record_size_limit
        )
    extensions[ExtensionType.SUPPORTED_VERSIONS] = ext.write_client_versions()
    if config.credential is not None:
        # Sent without a session too: it tells a server that its tickets are welcome (§4.2.9). An anonymous client has
        # no use for them.
        extensions[ExtensionType.PSK_KEY_EXCHANGE_MODES] = vector(1, bytes((ext.PSK_DHE_KE,)))
    extensions[ExtensionType.KEY_SHARE] = _key_share(share)
    return extensions


def _key_share(share: GroupPrivateShare) -> bytes:
    return ext.write_client_key_shares((ext.KeyShareEntry(share.group.code_point, share.public),))


def _with_session(
    config: ClientConfig,
    hello: ClientHello,
    share: GroupPrivateShare,
    sessions: tuple[Session, ...],
    before: tuple[bytes, ...],
) -> Offer:
    """Put pre_shared_key behind all other extensions, its binder over all that comes before it (§4.2.11.2)."""
    for session in sessions:
        suite = session.facts.suite
        placeholder = bytes(suite.hash_length)
        age = session.obfuscated_age(config.now())
        extensions = dict(hello.extensions)
        extensions[ExtensionType.PRE_SHARED_KEY] = ext.write_offered_psk(session.ticket, age, placeholder)
        hello = replace(hello, extensions=extensions)
        truncated = hello.encode()[: -len(ext.write_binder_list(placeholder))]
        digest = Transcript(suite.hash_name, *before, truncated).digest()
        early_secret = EarlySecret.with_psk(suite, config.provider, session.psk)
        binder = early_secret.binder(digest)
        extensions[ExtensionType.PRE_SHARED_KEY] = ext.write_offered_psk(session.ticket, age, binder)
        raw = truncated + ext.write_binder_list(binder)
        return Offer(hello, raw, share, (OfferedSession(session, early_secret),))
    return Offer(hello, hello.encode(), share, ())


def _asked_group(content: bytes, config: ClientConfig, sent: GroupPrivateShare) -> NamedGroup:
    code_point = ext.read_selected(content, "HelloRetryRequest")
    for profile in config.profiles:
        for group in profile.groups:
            if group.code_point == code_point and group is not sent.group:
                return group
    raise ProtocolViolation(
        f"a HelloRetryRequest asks for group {code_point:#06x}, which was not offered or has a share already",
        Alert.ILLEGAL_PARAMETER,
    )


def check_server_hello(server_hello: ServerHello, offer: Offer, config: ClientConfig) -> CipherSuite:
    """What holds for ServerHello and HelloRetryRequest alike (§4.1.3, §4.1.4); returns the suite."""
    versions = server_hello.extensions.get(ExtensionType.SUPPORTED_VERSIONS)
    if versions is None:
        tampered = server_hello.random[-8:] in DOWNGRADE_SENTINELS
        raise ProtocolViolation(
            "the server speaks an older TLS" + (", though it knows TLS 1.3: a downgrade" if tampered else ""),
            Alert.ILLEGAL_PARAMETER if tampered else Alert.PROTOCOL_VERSION,
        )
    if ext.read_selected(versions, "supported_versions") != ext.TLS_1_3:
        raise ProtocolViolation("the server selected a version that was not offered", Alert.ILLEGAL_PARAMETER)
    if server_hello.legacy_version != LEGACY_VERSION:
        raise ProtocolViolation("legacy_version of ServerHello is not 0x0303", Alert.ILLEGAL_PARAMETER)
    if server_hello.session_id_echo != offer.hello.session_id:
        raise ProtocolViolation("the server does not echo the session id", Alert.ILLEGAL_PARAMETER)
    if server_hello.compression_method != 0:
        raise ProtocolViolation("the server selected a compression", Alert.ILLEGAL_PARAMETER)
    for profile in config.profiles:
        for suite in profile.cipher_suites:
            if suite.code_point == server_hello.cipher_suite:
                return suite
    raise ProtocolViolation(
        f"the server selected cipher suite {server_hello.cipher_suite:#06x}, which was not offered",
        Alert.ILLEGAL_PARAMETER,
    )


def profile_of_answer(group: NamedGroup, suite: CipherSuite, config: ClientConfig) -> Profile:
    """The profile that the server's group belongs to; its suite must belong to the same one."""
    profile = config.profile_of(group.code_point)
    if profile is None or suite not in profile.cipher_suites:
        raise ProtocolViolation(
            f"the server combines {group.name} with {suite.name}, which no profile of ours does",
            Alert.ILLEGAL_PARAMETER,
        )
    return profile
