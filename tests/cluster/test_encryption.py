"""What whoever listens on the node gets of the traffic between two pods."""

from __future__ import annotations

from collections.abc import Callable

from pqtls.groups import X25519MLKEM1024
from tests.cluster import cluster
from tests.cluster.capture import capturing, hellos
from tests.cluster.conftest import Shop
from tests.cluster.pcap import streams
from tests.cluster.workloads import HTTP_PORT, Workload, curl, meet, nginx, start

TLS_1_3 = 0x0304
ASKED, ANSWERED = "marker-of-the-question", "marker-of-the-answer"
# Longer than all of a connection that carries something else; nginx takes words of up to 4 KiB.
_ANSWER = ANSWERED * 180
_QUESTION = ("--header", f"X-Asked: {ASKED * 100}")


def test_a_node_sees_tls_and_no_plaintext_between_two_pods_of_the_mesh(
    shop: Shop, namespace: str, saw: Callable[[str], None]
) -> None:
    (secret,) = start(namespace, Workload(name="secret", command=nginx(_ANSWER), port=HTTP_PORT))
    pod = secret.pods()[0]
    address = pod["status"]["podIP"]

    with capturing(shop.outside, pod["spec"]["nodeName"], address) as capture:
        # Until its sidecar knows the server it is refused, and has said nothing that is marked.
        meet(shop.client, secret.url)
        assert ANSWERED in shop.client.run(*curl(*_QUESTION, secret.url))
        seen = cluster.until(
            "the capture has all of the question and of the answer",
            lambda: seen if _carried(seen := capture.so_far(), address) >= len(_ANSWER) else None,
        )

    assert ASKED.encode() not in seen
    assert ANSWERED.encode() not in seen
    of_tls = hellos(seen, address)
    assert of_tls, "a connection was made before the capture began?"
    for hello in of_tls:
        assert TLS_1_3 in hello.offered_versions
        assert X25519MLKEM1024.code_point in hello.offered_groups
        assert (hello.chosen_version, hello.chosen_group) == (TLS_1_3, X25519MLKEM1024.code_point)
    saw(
        f"{len(seen)} bytes on the node, {_carried(seen, address)} of them carried by TCP, neither marker among them; "
        f"{len(of_tls)} ClientHello, groups offered {_hex(of_tls[0].offered_groups)}, "
        f"chosen 0x{of_tls[0].chosen_group:04X} in TLS 0x{of_tls[0].chosen_version:04X}"
    )


def test_without_injection_the_same_capture_finds_both_markers(
    shop: Shop, outside: str, saw: Callable[[str], None]
) -> None:
    (secret,) = start(outside, Workload(name="secret", command=nginx(_ANSWER), port=HTTP_PORT))
    pod = secret.pods()[0]
    address = pod["status"]["podIP"]

    with capturing(outside, pod["spec"]["nodeName"], address) as capture:
        assert ANSWERED in shop.stranger.run(*curl(*_QUESTION, secret.url))
        seen = cluster.until(
            "the capture has all of the question and of the answer",
            lambda: seen if _carried(seen := capture.so_far(), address) >= len(_ANSWER) else None,
        )

    assert ASKED.encode() in seen
    assert ANSWERED.encode() in seen
    assert hellos(seen, address) == []
    saw(f"both markers in {len(seen)} bytes on the node")


def _carried(seen: bytes, server: str) -> int:
    """How many bytes of payload were seen to and from a server's application."""
    return sum(len(data) for ends, data in streams(seen).items() if any(end.address == server for end in ends))


def _hex(numbers: tuple[int, ...]) -> str:
    return ", ".join(f"0x{number:04X}" for number in numbers)
