"""Reads the first trace of RFC 8448 from the RFC's own text, so that the values kept here can be checked against it."""

from __future__ import annotations

import re
from typing import Final

_PAGE_BREAK: Final = re.compile(r"\n*\n[^\n]*\[Page \d+\]\n\x0c?\n*RFC 8448[^\n]*\n+")
_STEP: Final = re.compile(r"^   \{(client|server)\}\s+(.+?):?$")
_FIELD: Final = re.compile(r"^      (\S[^(:]*?)(?: \(\d+ octets\))?:  (.*)$")

_C, _S = "client: ", "server: "
# Our name of a value: where it stands in section 3, as "who: step: field"; #2 is a step's second time.
NAMES: Final = {
    "client_hello": _C + "construct a ClientHello handshake message: ClientHello",
    "client_private_key": _C + "create an ephemeral x25519 key pair: private key",
    "client_public_key": _C + "create an ephemeral x25519 key pair: public key",
    "server_public_key": _S + "create an ephemeral x25519 key pair: public key",
    "early_secret": _S + 'extract secret "early": secret',
    "derived_for_handshake": _S + 'derive secret for handshake "tls13 derived": expanded',
    "shared_secret": _S + 'extract secret "handshake": IKM',
    "handshake_secret": _S + 'extract secret "handshake": secret',
    "server_hello": _S + "construct a ServerHello handshake message: ServerHello",
    "hello_hash": _S + 'derive secret "tls13 c hs traffic": hash',
    "client_handshake_traffic_secret": _S + 'derive secret "tls13 c hs traffic": expanded',
    "server_handshake_traffic_secret": _S + 'derive secret "tls13 s hs traffic": expanded',
    "derived_for_master": _S + 'derive secret for master "tls13 derived": expanded',
    "master_secret": _S + 'extract secret "master": secret',
    "server_handshake_key": _S + "derive write traffic keys for handshake data: key expanded",
    "server_handshake_iv": _S + "derive write traffic keys for handshake data: iv expanded",
    "encrypted_extensions": _S + "construct an EncryptedExtensions handshake message: EncryptedExtensions",
    "certificate": _S + "construct a Certificate handshake message: Certificate",
    "certificate_verify": _S + "construct a CertificateVerify handshake message: CertificateVerify",
    "server_finished_key": _S + 'calculate finished "tls13 finished": expanded',
    "server_verify_data": _S + 'calculate finished "tls13 finished": finished',
    "server_finished": _S + "construct a Finished handshake message: Finished",
    "server_flight": _S + "send handshake record #2: payload",
    "server_flight_record": _S + "send handshake record #2: complete record",
    "server_finished_hash": _S + 'derive secret "tls13 c ap traffic": hash',
    "client_application_traffic_secret": _S + 'derive secret "tls13 c ap traffic": expanded',
    "server_application_traffic_secret": _S + 'derive secret "tls13 s ap traffic": expanded',
    "exporter_master_secret": _S + 'derive secret "tls13 exp master": expanded',
    "server_application_key": _S + "derive write traffic keys for application data: key expanded",
    "server_application_iv": _S + "derive write traffic keys for application data: iv expanded",
    "client_handshake_key": _S + "derive read traffic keys for handshake data: key expanded",
    "client_handshake_iv": _S + "derive read traffic keys for handshake data: iv expanded",
    "client_finished_key": _C + 'calculate finished "tls13 finished": expanded',
    "client_verify_data": _C + 'calculate finished "tls13 finished": finished',
    "client_finished": _C + "construct a Finished handshake message: Finished",
    "client_finished_record": _C + "send handshake record #2: complete record",
    "client_application_key": _C + "derive write traffic keys for application data: key expanded",
    "client_application_iv": _C + "derive write traffic keys for application data: iv expanded",
    "client_finished_hash": _C + 'derive secret "tls13 res master": hash',
    "resumption_master_secret": _C + 'derive secret "tls13 res master": expanded',
    "new_session_ticket": _S + "construct a NewSessionTicket handshake message: NewSessionTicket",
    "new_session_ticket_record": _S + "send handshake record #3: complete record",
    "client_data": _C + "send application_data record: payload",
    "client_data_record": _C + "send application_data record: complete record",
    "server_data_record": _S + "send application_data record: complete record",
    "client_alert_record": _C + "send alert record: complete record",
    "server_alert_record": _S + "send alert record: complete record",
}


def read_section_3(text: str) -> dict[str, str]:
    """The values of section 3 that NAMES lists, in hex, from the text of the RFC."""
    values: dict[str, str] = {}
    steps: dict[str, int] = {}
    step = name = ""
    for line in _section_3(text).splitlines():
        if found := _STEP.match(line):
            step = f"{found[1]}: {found[2]}"
            steps[step] = steps.get(step, 0) + 1
            step += f" #{steps[step]}" if steps[step] > 1 else ""
            name = ""
        elif found := _FIELD.match(line):
            name = f"{step}: {found[1]}"
            values[name] = found[2]
        elif name and line.startswith("         "):
            values[name] += line
    return {ours: values[theirs].replace(" ", "") for ours, theirs in NAMES.items()}


def _section_3(text: str) -> str:
    text = _PAGE_BREAK.sub("\n", text)
    # The headings stand in the table of contents, too: the last time is the section itself.
    return text[text.rindex("\n3.  Simple 1-RTT Handshake") : text.rindex("\n4.  Resumed 0-RTT Handshake")]
