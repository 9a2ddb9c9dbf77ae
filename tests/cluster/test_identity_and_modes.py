"""Who a peer is, and whether one without an identity is let in."""

from __future__ import annotations

from collections.abc import Callable

from tests.cluster import cluster
from tests.cluster.conftest import Shop
from tests.cluster.workloads import HTTP_PORT, Workload, curl, meet, nginx, start


def test_a_peer_s_identity_is_its_pod_s_service_account(shop: Shop, saw: Callable[[str], None]) -> None:
    meet(shop.client, shop.web.url)
    expected = f"spiffe://cluster.local/ns/{shop.namespace}/sa/client"

    assert shop.web.workload.name in shop.client.run(*curl(shop.web.url))
    line = cluster.until(
        "the server's access log has the connection",
        lambda: next((one for one in shop.web.access_log() if one["peer_identity"] == expected), None),
        otherwise=lambda: cluster.diagnosis(shop.namespace),
    )

    assert line["local_identity"] == f"spiffe://cluster.local/ns/{shop.namespace}/sa/web"
    assert (line["group"], line["signature"]) == ("X25519MLKEM1024", "mldsa87")
    counted = cluster.until(
        "the server's metrics have the connection",
        lambda: (
            shop.web.metrics(
                "istio_tcp_connections_opened_total",
                reporter="destination",
                source_principal=f"cluster.local/ns/{shop.namespace}/sa/client",
            )
            or shop.web.metrics("istio_tcp_connections_opened_total", reporter="destination", source_principal=expected)
        ),
        otherwise=shop.web.exposition,
    )
    saw(f"{line['peer_identity']} in the access log ({line['group']}, {line['signature']}); {counted:g} in the metrics")


def test_strict_refuses_a_client_without_a_sidecar(shop: Shop, saw: Callable[[str], None]) -> None:
    before = shop.web.metrics("qbitel_connections_refused_total", reason="plaintext_refused")

    code, said = shop.stranger.try_to(*curl(shop.web.url))

    assert code != 0, said
    assert shop.web.workload.name not in said.replace("hello from", "")
    refused = cluster.until(
        "the refusal is counted",
        lambda: shop.web.metrics("qbitel_connections_refused_total", reason="plaintext_refused") - before,
    )
    logged = [one for one in shop.web.access_log() if one.get("reason") == "plaintext_refused"]
    assert logged, "the refusal is not in the access log"
    saw(f"curl: exit code {code}; {refused:g} refused; the log says {logged[-1]['flag']} {logged[-1]['reason']}")


def test_permissive_serves_a_client_without_a_sidecar_and_counts_it(
    shop: Shop, namespace: str, saw: Callable[[str], None]
) -> None:
    annotations = {"qbitel.io/mtls-mode": "PERMISSIVE"}
    (open_,) = start(namespace, Workload(name="open", command=nginx(), port=HTTP_PORT, annotations=annotations))
    address = shop.stranger.pod_address

    assert "hello from open" in shop.stranger.run(*curl(open_.url))

    passed = cluster.until(
        "it is counted", lambda: open_.metrics("qbitel_plaintext_connections_total", direction="inbound")
    )
    by_address = open_.metrics("qbitel_plaintext_peer_connections_total")
    logged = [one for one in open_.access_log() if one.get("received_as") == "plaintext"]
    assert logged
    assert logged[-1]["peer_identity"] is None
    saw(f"served; {passed:g} plaintext connections, {by_address:g} by who came; the stranger is {address}")
