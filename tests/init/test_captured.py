"""Where connections go with each class of option, in real network namespaces; the defaults are in test_apply.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from mesh import names
from tests.init.conftest import PEER, POD, Namespace, join, need_root

if TYPE_CHECKING:
    from tests.init.conftest import Pair

pytestmark = pytest.mark.root

APP = {"uid": 1000, "gid": 1000}
OTHER = {"uid": 3000, "gid": 3000}
SIDECAR = {"uid": 2102, "gid": 2102}

both_families = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])


@both_families
def test_sources_that_are_exempt_reach_the_application_and_others_the_sidecar(clean_pair: Pair, version: int) -> None:
    pod, peer = clean_pair.pod_address[version], clean_pair.peer_address[version]
    clean_pair.pod.qbitel_init("--exclude-inbound-sources", peer)
    assert clean_pair.peer.dial(pod, 8080)["port"] == 8080
    clean_pair.pod.qbitel_init("--exclude-inbound-sources", "192.0.2.0/24,2001:db8::/32")
    assert clean_pair.peer.dial(pod, 8080)["port"] == 15006


@both_families
def test_with_included_sources_nobody_else_is_captured(clean_pair: Pair, version: int) -> None:
    pod, peer = clean_pair.pod_address[version], clean_pair.peer_address[version]
    clean_pair.pod.qbitel_init("--include-inbound-sources", "192.0.2.0/24,2001:db8::/32")
    assert clean_pair.peer.dial(pod, 8080)["port"] == 8080
    clean_pair.pod.qbitel_init("--include-inbound-sources", f"192.0.2.0/24,{peer}", "--exclude-inbound-ports", "8081")
    assert clean_pair.peer.dial(pod, 8080)["port"] == 15006
    assert clean_pair.peer.dial(pod, 8081)["port"] == 8081


@both_families
def test_users_and_groups_that_are_excluded_reach_the_network(clean_pair: Pair, version: int) -> None:
    pod, peer = clean_pair.pod, clean_pair.peer_address[version]
    pod.qbitel_init("--exclude-uids", "999-1000", "--exclude-gids", "50")
    assert pod.dial(peer, 8080, **APP)["port"] == 8080
    assert pod.dial(peer, 8080, uid=3000, gid=50)["port"] == 8080
    assert pod.dial(peer, 8080, **OTHER)["port"] == 15001


@both_families
def test_with_included_users_and_groups_nobody_else_is_captured(clean_pair: Pair, version: int) -> None:
    pod, peer = clean_pair.pod, clean_pair.peer_address[version]
    pod.qbitel_init("--include-uids", "1000-1999", "--include-gids", "50")
    assert pod.dial(peer, 8080, **APP)["port"] == 15001
    assert pod.dial(peer, 8080, uid=3000, gid=50)["port"] == 15001
    assert pod.dial(peer, 8080, **OTHER)["port"] == 8080
    assert pod.dial(peer, 8080, **SIDECAR)["port"] == 8080


@both_families
def test_a_port_that_is_excluded_for_a_user_is_captured_for_others(clean_pair: Pair, version: int) -> None:
    pod, peer = clean_pair.pod, clean_pair.peer_address[version]
    pod.qbitel_init("--exclude-outbound-ports-for-uids", "1000:8081,9000-9100")
    assert pod.dial(peer, 8081, **APP)["port"] == 8081
    assert pod.dial(peer, 8080, **APP)["port"] == 15001
    assert pod.dial(peer, 8081, **OTHER)["port"] == 15001


@both_families
@pytest.mark.parametrize("excluded", ["15000-15100", "1-65535"])
def test_the_sidecar_proves_the_redirect_whatever_port_is_excluded(
    clean_pair: Pair, version: int, excluded: str
) -> None:
    pod, peer = clean_pair.pod, clean_pair.peer_address[version]
    pod.qbitel_init("--exclude-outbound-ports", excluded)
    front_door, source = {4: ("127.0.0.2", "127.0.0.1"), 6: ("::6", "::1")}[version]
    answer = pod.dial(front_door, 15002, source=source, **SIDECAR)
    assert (answer["port"], answer["original"]) == (15006, [front_door, 15002])
    # Nobody else's connection, and none to anywhere else, is captured for that.
    assert pod.dial(front_door, 15002, timeout=0.7, **APP) == {"error": "ConnectionRefusedError"}
    assert pod.dial(peer, 15002, timeout=0.7, **APP) == {"error": "ConnectionRefusedError"}


@both_families
def test_with_included_interfaces_no_other_one_is_captured(clean_pair: Pair, version: int) -> None:
    pod, peer = clean_pair.pod, clean_pair.peer_address[version]
    pod.qbitel_init("--include-interfaces", "eth0")
    assert pod.dial(peer, 8080, **APP)["port"] == 15001
    assert clean_pair.peer.dial(clean_pair.pod_address[version], 8080)["port"] == 15006
    # The sidecar still comes in by the front door, over lo.
    assert pod.dial(clean_pair.pod_address[version], 8080, **SIDECAR)["port"] == 15006
    pod.qbitel_init("--include-interfaces", "net+")
    assert pod.dial(peer, 8080, **APP)["port"] == 8080
    assert clean_pair.peer.dial(clean_pair.pod_address[version], 8080)["port"] == 8080


@both_families
def test_questions_to_name_servers_go_to_the_port_that_is_named(clean_pair: Pair, version: int) -> None:
    pod, peer = clean_pair.pod, clean_pair.peer_address[version]
    pod.qbitel_init("--dns-port", "15053")
    assert pod.dial(peer, 53, udp=1, **APP)["port"] == 15053
    assert pod.dial(peer, 53, **APP)["port"] == 15053
    assert pod.dial(peer, 53, **SIDECAR)["port"] == 53
    pod.qbitel_init("--dns-port", "15053", "--exclude-outbound-ports", "53")
    assert pod.dial(peer, 53, udp=1, **APP)["port"] == 53


@both_families
def test_the_sidecar_may_ask_from_a_port_that_the_application_has_just_asked_from(
    clean_pair: Pair, version: int
) -> None:
    pod, peer = clean_pair.pod, clean_pair.peer_address[version]
    pod.qbitel_init("--dns-port", "15053")
    # Connection tracking remembers the first one for half a minute; without zones of its own the second one would be
    # taken for a part of it, and redirected to the sidecar that sent it.
    assert pod.dial(peer, 53, udp=1, source_port=40053, **APP)["port"] == 15053
    assert pod.dial(peer, 53, udp=1, source_port=40053, **SIDECAR)["port"] == 53
    assert pod.dial(peer, 53, udp=1, source_port=40053, **APP)["port"] == 15053


# TPROXY


@pytest.fixture(scope="module", params=["nft", "legacy"])
def transparent(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """A pair whose pod has a sidecar with a transparent socket, for each back end that the kernel has."""
    from tests.init.conftest import Pair as MadePair

    need_root()
    pod, peer = Namespace(), Namespace()
    if pod.run(f"iptables-{request.param}", "-t", "nat", "-S", check=False).returncode != 0:
        pytest.skip(f"the kernel has no {request.param} back end")
    join(pod, peer)
    pod.qbitel_init(
        "--inbound-mode", "tproxy", "--exclude-inbound-ports", "8081", "--backend", request.param, "--drop-invalid"
    )
    pod.endpoint("transparent", "15006", str(names.TPROXY_MARK))
    pod.serve(15001, 15090, 8080, 8081)
    peer.serve(8080)
    yield MadePair(pod, peer, POD, PEER)
    pod.close()
    peer.close()


@both_families
def test_by_tproxy_the_application_sees_the_address_of_its_client(transparent: Pair, version: int) -> None:
    pod, peer = transparent.pod_address[version], transparent.peer_address[version]
    answer = transparent.peer.dial(pod, 8080)
    assert answer["through"] == answer["arrived"] == [pod, 8080]
    assert answer["said"] == {"port": 8080, "peer": peer, "original": None}


@both_families
@pytest.mark.parametrize("port", [8081, 15090])
def test_by_tproxy_excluded_ports_are_not_captured(transparent: Pair, version: int, port: int) -> None:
    answer = transparent.peer.dial(transparent.pod_address[version], port)
    assert (answer["port"], answer["peer"]) == (port, transparent.peer_address[version])


@both_families
def test_by_tproxy_the_front_door_is_still_a_redirect(transparent: Pair, version: int) -> None:
    pod = transparent.pod_address[version]
    answer = transparent.pod.dial(pod, 8080, **SIDECAR)
    assert answer["through"] == [pod, 8080]
    assert answer["arrived"] == [{4: "127.0.0.1", 6: "::1"}[version], 15006]
    assert answer["said"]["port"] == 8080


@both_families
def test_by_tproxy_the_pod_still_dials_out_and_itself(transparent: Pair, version: int) -> None:
    pod, peer = transparent.pod, transparent.peer_address[version]
    assert pod.dial(peer, 8080, **APP)["port"] == 15001
    assert pod.dial(peer, 8080, **SIDECAR)["port"] == 8080
    assert pod.dial(transparent.pod_address[version], 8080, **APP)["port"] == 8080
    assert pod.dial({4: "127.0.0.1", 6: "::1"}[version], 8080, **APP)["port"] == 8080
