"""The numbers and names that users have in their dashboards, network policies and manifests: a change breaks
them.
"""

from __future__ import annotations

import ipaddress

from mesh import names


def test_ports_are_those_that_istio_s_users_know() -> None:
    assert (names.OUTBOUND_PORT, names.INBOUND_PORT, names.TUNNEL_PORT) == (15001, 15006, 15008)
    assert (names.METRICS_PORT, names.HEALTH_PORT, names.ADMIN_PORT) == (15090, 15021, 15000)
    assert names.SELF_TEST_PORT == 15002
    assert names.AUTHORITY_PORT == 15012


def test_no_two_ports_are_the_same() -> None:
    ports = [value for name, value in vars(names).items() if name.endswith("_PORT")]

    assert len(ports) == 10
    assert len(set(ports)) == len(ports)


def test_the_sidecar_s_user_is_not_istio_s() -> None:
    assert names.SIDECAR_UID == names.SIDECAR_GID == 2102
    assert names.SIDECAR_UID != 1337


def test_the_inbound_source_is_local_but_not_the_address_that_applications_use() -> None:
    v4 = ipaddress.ip_address(names.INBOUND_SOURCE_V4)
    v6 = ipaddress.ip_address(names.INBOUND_SOURCE_V6)

    assert v4.is_loopback
    assert v4 != ipaddress.ip_address("127.0.0.1")
    assert v6.version == 6
    assert v6 != ipaddress.ip_address("::1")


def test_the_alpn_protocol_is_a_legal_name() -> None:
    # RFC 7301 §3.1: 1 to 255 bytes.
    assert names.ALPN_STREAM == b"qbitel-tcp/1"
    assert 1 <= len(names.ALPN_STREAM) <= 255


def test_labels_and_annotations_have_the_prefix_that_manifests_are_written_with() -> None:
    assert names.ANNOTATION_PREFIX == "qbitel.io/"
    assert names.INJECT_KEY == "qbitel.io/inject"
    assert names.NAMESPACE_LABEL == "qbitel-injection"
    assert (names.CONTROL_NAMESPACE, names.WEBHOOK_NAME) == ("qbitel-system", "qbitel-sidecar-injector")


def test_certificates_lie_where_a_tls_secret_is_mounted() -> None:
    # tls.crt and tls.key are the keys of a Kubernetes Secret of type kubernetes.io/tls.
    assert names.CERTIFICATE_FOLDER == "/etc/qbitel/certs"
    assert (names.CERTIFICATE_FILE, names.PRIVATE_KEY_FILE, names.ROOTS_FILE) == ("tls.crt", "tls.key", "ca.crt")


def test_the_trust_domain_is_a_cluster_s_own_by_default() -> None:
    assert names.DEFAULT_TRUST_DOMAIN == "cluster.local"


def test_what_a_pod_is_given_to_enrol_has_the_names_that_manifests_are_written_with() -> None:
    assert (names.AUTHORITY_SERVICE, names.ROOTS_CONFIG_MAP) == ("qbitel-certmgr", "qbitel-ca-root")
    assert (names.TOKEN_AUDIENCE, names.TOKEN_FILE) == ("qbitel", "/var/run/secrets/qbitel/token")
    assert names.ROOTS_FOLDER == "/etc/qbitel/roots"
