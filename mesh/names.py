"""Every name and number that more than one program must agree on, once.

Ports, the sidecar's user id, labels, paths and the ALPN protocol name: a sidecar, the interception
rules, the injector and the documentation all read them here.
"""

from __future__ import annotations

from typing import Final

# Ports inside a pod. 15001, 15006, 15008, 15021 and 15090 are the numbers that Istio's users already know and
# that dashboards, network policies and port-forwards are written for.
OUTBOUND_PORT: Final = 15001  # interception sends what the application dials here
SELF_TEST_PORT: Final = 15002  # `qbitel init --validate` proves the redirect here
INBOUND_PORT: Final = 15006  # interception sends what others dial here
TUNNEL_PORT: Final = 15008  # reserved for sidecar-to-sidecar tunnels; never redirected
ADMIN_PORT: Final = 15000  # loopback only
MERGED_METRICS_PORT: Final = 15020  # where Istio's agent merges application metrics; never redirected
HEALTH_PORT: Final = 15021  # readiness and rewritten probes
METRICS_PORT: Final = 15090  # Prometheus
DNS_PORT: Final = 15053  # where a sidecar that answers DNS would listen; Istio's users know it

# Never 1337: that is Istio's, and its owner-match rules would let our traffic slip past (or ours theirs).
SIDECAR_UID: Final = 2102
SIDECAR_GID: Final = 2102

# The source address that the inbound side dials the application from: inside 127.0.0.0/8, so that it is always
# local, and no address of an application, so that interception can tell the sidecar's own connections.
INBOUND_SOURCE_V4: Final = "127.0.0.6"
INBOUND_SOURCE_V6: Final = "::6"

# ALPN (RFC 7301) of one application connection carried as one TLS stream between two sidecars. It is what tells a
# sidecar's ClientHello from the application's own TLS. The number is the version of the framing (here: none).
ALPN_STREAM: Final = b"qbitel-tcp/1"
# Many of them as streams of one TLS connection (docs/adr/0018-tunnels.md).
ALPN_TUNNEL: Final = b"qbitel-mux/1"
# A connection of its own for a stream that began in a tunnel and turned out to be bulk.
ALPN_MOVE: Final = b"qbitel-move/1"

# Interception by TPROXY: packets with this mark (SO_MARK on the sidecar's own sockets) are delivered inside the pod, by
# a routing rule of this priority (before main's 32766) and a table. The UID's number tells an operator whose they are.
TPROXY_MARK: Final = SIDECAR_UID
TPROXY_TABLE: Final = SIDECAR_UID
TPROXY_PRIORITY: Final = SIDECAR_UID

# What the injector tells the sidecar of the application's probes and hooks (docs/adr/0021-injection.md).
APP_PROBES_VARIABLE: Final = "QBITEL_APP_PROBES"

ANNOTATION_PREFIX: Final = "qbitel.io/"
INJECT_KEY: Final = "qbitel.io/inject"  # label and annotation of a pod
STATUS_ANNOTATION: Final = "qbitel.io/status"  # of an injected pod: what was done to it
SIDECAR_CONTAINER: Final = "qbitel-proxy"
NAMESPACE_LABEL: Final = "qbitel-injection"  # values: enabled, disabled
CONTROL_NAMESPACE: Final = "qbitel-system"
WEBHOOK_NAME: Final = "qbitel-sidecar-injector"

CERTIFICATE_FOLDER: Final = "/etc/qbitel/certs"
CERTIFICATE_FILE: Final = "tls.crt"
PRIVATE_KEY_FILE: Final = "tls.key"
ROOTS_FILE: Final = "ca.crt"
REVOCATION_FILE: Final = "crl.pem"  # may be absent: then nothing is revoked
INTERMEDIATES_FILE: Final = "intermediates.crt"  # may be absent: then peers send theirs with each handshake
KEM_CERTIFICATE_FILE: Final = "kem.crt"  # the ML-KEM-1024 certificate that secrets are sealed to
KEM_PRIVATE_KEY_FILE: Final = "kem.key"

# The authority (`qbitel certmgr serve`) and what a pod is given to enrol there. 15012 is the port of Istio's authority.
AUTHORITY_PORT: Final = 15012
AUTHORITY_SERVICE: Final = "qbitel-certmgr"  # its Service and its service account, in CONTROL_NAMESPACE
TOKEN_AUDIENCE: Final = "qbitel"  # noqa: S105  # of projected service-account tokens
TOKEN_FILE: Final = "/var/run/secrets/qbitel/token"  # noqa: S105  # where the projected token is mounted
ROOTS_CONFIG_MAP: Final = (
    "qbitel-ca-root"  # in each injected namespace: ROOTS_FILE, INTERMEDIATES_FILE, REVOCATION_FILE
)
ROOTS_FOLDER: Final = "/etc/qbitel/roots"  # where that ConfigMap is mounted

# What `qbitel discovery serve` writes into each injected namespace (docs/adr/0022-cluster.md), and where pods find it.
DISCOVERY_SERVICE: Final = "qbitel-discovery"  # its service account and its Lease, in CONTROL_NAMESPACE
MESH_CONFIG_MAP: Final = "qbitel-mesh"
POLICIES_KEY: Final = "policies.yaml"  # the resources of the namespace and of the root namespace
PEERS_KEY: Final = "peers.yaml"  # the peers document (docs/peers.md)
POLICY_FOLDER: Final = "/etc/qbitel/mesh/policy"
PEERS_FILE: Final = "/etc/qbitel/mesh/peers/peers.yaml"
# Policies as text, for clusters without Istio's CRDs: ConfigMaps with this label, set to "true".
POLICY_LABEL: Final = "qbitel.io/policy"
WEBHOOK_SECRET: Final = "qbitel-sidecar-injector-tls"  # noqa: S105  # tls.crt, tls.key, ca.crt, made by the authority

DEFAULT_TRUST_DOMAIN: Final = "cluster.local"
