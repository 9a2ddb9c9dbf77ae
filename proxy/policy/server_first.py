"""Ports of protocols in which the server speaks first, so that a client's silence says something at once. Pure data.

Where plaintext is welcome (PERMISSIVE) a connection is told apart by its first bytes. A client that waits for the
server sends none: everywhere else that is found out by Limits.peek_timeout, at these ports by the much shorter
Limits.server_first_timeout. A sidecar of the mesh speaks at once whatever the port, and is recognised all the same.

Not here, because the client speaks first: PostgreSQL (5432, its TLS is asked for in-band by an SSLRequest, which is no
ClientHello), MongoDB (27017, OP_MSG), Redis, memcached, Kafka, AMQP, LDAP and whatever begins with TLS (465, 993, 995).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

SERVER_FIRST: Final[Mapping[int, str]] = {
    21: "FTP: the reply 220 opens the connection (RFC 959 §5.4)",
    22: "SSH: both sides send their version, and a client may wait for the server's (RFC 4253 §4.2)",
    25: "SMTP: the server's greeting (RFC 5321 §3.1); its TLS begins in-band by STARTTLS (RFC 3207)",
    110: "POP3: the server's greeting (RFC 1939 §4)",
    119: "NNTP: the server's greeting (RFC 3977 §5.1)",
    143: "IMAP: the server's greeting (RFC 9051 §2.2)",
    587: "mail submission: SMTP (RFC 6409 §3.1)",
    3306: "MySQL: the server's initial handshake packet; its TLS begins in-band behind it",
    4190: "ManageSieve: the server's capabilities (RFC 5804 §1.7)",
    4222: "NATS: the server's INFO",
    5900: "RFB (VNC): the server's ProtocolVersion (RFC 6143 §7.1.1)",
}
