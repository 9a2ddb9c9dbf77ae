"""The whole demo, as a user runs it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.demo.frames import PCAP_HEADER
from cli.demo.guard import why_no_namespaces
from cli.demo.processes import Place

RunDemo = Callable[..., Any]

needs_pods = pytest.mark.skipif(bool(why_no_namespaces()), reason=f"no pods: {why_no_namespaces()}")
SECONDS = 60  # what the demo promises: under a minute


def get(url: str) -> tuple[int, str]:
    host, path = url.removeprefix("http://").split("/", 1)
    connection = http.client.HTTPConnection(host, timeout=5)
    connection.request("GET", f"/{path}")
    response = connection.getresponse()
    status, body = response.status, response.read().decode()
    connection.close()
    return status, body


@pytest.mark.root
@needs_pods
def test_in_pods_every_claim_is_seen_with_a_file_of_256_mib(run_demo: RunDemo) -> None:
    demo = run_demo("--json")
    assert demo.process.wait(SECONDS) == 0, demo.text()
    text = demo.text()
    document, _ = json.JSONDecoder().raw_decode(text[text.index("\n{\n") + 1 :])
    assert document["ok"] is True
    assert document["stage"] == "namespaces"
    assert all(claim["seen"] for claim in document["claims"])
    assert len(document["claims"]) == 10
    shake = document["mesh"]["outbound"][0]
    assert (shake["group"], shake["signature"]) == ("X25519MLKEM1024", "mldsa87")
    assert document["through"]["transfer"]["received"] == 256 << 20
    assert document["through"]["wire"]["bytes"] > 256 << 20
    assert document["without"]["wire"]["hits"]["file"] > 100_000
    assert document["mesh"]["sidecar_rights"] == ["UID 2102, capabilities 0, no_new_privs 1"] * 2
    assert demo.left() == []


@pytest.mark.root
@needs_pods
def test_while_it_lives_a_user_can_look_in_and_ctrl_c_ends_it_well(run_demo: RunDemo) -> None:
    demo = run_demo("--file-mib", "8")
    demo.wait_for(" handshakes, ")
    text = demo.text()
    urls = re.findall(r"http://127\.0\.0\.1:\d+/metrics", text)
    assert len(urls) == 2
    for url in urls:
        status, body = get(url)
        assert status == 200
        assert "qbitel_tls_handshakes_total" in body
    door = re.search(r"curl (http://127\.0\.0\.1:\d+/small)", text)
    assert door is not None
    assert get(door[1])[1].startswith("hello from the sample server")
    demo.wait_for("requests,")
    assert demo.networks, "the pods were not seen"
    assert demo.end(signal.SIGINT) == 0
    assert demo.left() == []
    assert "Traceback" not in demo.text()


def test_without_root_it_plays_on_loopback_and_says_why_and_keeps_the_capture(run_demo: RunDemo) -> None:
    prefix = Place(user=(65534, 65534)).wrap([]) if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        kept = Path(folder) / "kept.pcap"
        demo = run_demo("--once", "--file-mib", "2", "--keep-capture", str(kept), prefix=prefix)
        assert demo.process.wait(SECONDS) == 0, demo.text()
        content = kept.read_bytes()
    assert "two sidecars over loopback, because namespaces need root" in demo.text()
    assert "every claim was seen" in demo.text()
    assert demo.left() == []
    assert content.startswith(PCAP_HEADER)
    assert len(content) > 2 << 20
    assert b"qbitel-tcp/1" in content
    assert b"qbitel-demo-plaintext" not in content


HIDE_IPTABLES = """
for program in $(ls /usr/sbin/xtables-* /sbin/xtables-* 2>/dev/null); do mount --bind /dev/null $program || exit 3; done
exec "$@"
"""


@pytest.mark.root
@needs_pods
def test_where_iptables_does_not_work_it_falls_back_and_says_why(run_demo: RunDemo) -> None:
    prefix = ["unshare", "--mount", "--propagation", "private", "sh", "-c", HIDE_IPTABLES, "sh"]
    demo = run_demo("--once", "--file-mib", "1", prefix=prefix)
    assert demo.process.wait(SECONDS) == 0, demo.text()
    assert re.search("over loopback, because .*iptables", demo.text())
    assert demo.left() == []
