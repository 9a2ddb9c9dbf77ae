"""Interception in real network namespaces: where do connections go, and what stays behind?"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.init.conftest import Namespace, Pair

pytestmark = pytest.mark.root

APP = {"uid": 1000, "gid": 1000}
SIDECAR = {"uid": 2102, "gid": 2102}
LOOPBACK = {4: "127.0.0.1", 6: "::1"}
INBOUND_SOURCE = {4: "127.0.0.6", 6: "::6"}

# Still root, because another user may not be allowed to read the interpreter; the capability is what counts.
WITHOUT_NET_ADMIN = ("setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin")

both_families = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])


# Where connections go


@pytest.fixture(scope="module")
def captured(pair: Pair) -> Pair:
    """The pair, with interception and one exclusion of each kind. Tests that use it change nothing."""
    pair.pod.qbitel_init("--cleanup")
    pair.pod.qbitel_init("--exclude-inbound-ports", "8081", "--exclude-outbound-ports", "8081")
    return pair


@both_families
def test_what_the_application_dials_arrives_at_the_sidecar_with_its_destination(captured: Pair, version: int) -> None:
    peer = captured.peer_address[version]
    answer = captured.pod.dial(peer, 8080, **APP)
    assert (answer["port"], answer["original"]) == (15001, [peer, 8080])


@both_families
@pytest.mark.parametrize("owner", [SIDECAR, {"uid": 2102, "gid": 1000}, {"uid": 1000, "gid": 2102}], ids=str)
def test_what_the_sidecar_dials_is_not_captured_again(captured: Pair, version: int, owner: dict[str, int]) -> None:
    answer = captured.pod.dial(captured.peer_address[version], 8080, **owner)
    assert (answer["port"], answer["peer"]) == (8080, captured.pod_address[version])


@both_families
def test_what_others_dial_arrives_at_the_sidecar_with_its_destination(captured: Pair, version: int) -> None:
    pod = captured.pod_address[version]
    answer = captured.peer.dial(pod, 8080)
    assert (answer["port"], answer["original"], answer["peer"]) == (15006, [pod, 8080], captured.peer_address[version])


@both_families
@pytest.mark.parametrize("port", [8081, 15008, 15090])
def test_excluded_inbound_ports_are_not_captured(captured: Pair, version: int, port: int) -> None:
    answer = captured.peer.dial(captured.pod_address[version], port)
    assert (answer["port"], answer["original"]) == (port, None)


@both_families
def test_excluded_outbound_ports_are_not_captured(captured: Pair, version: int) -> None:
    answer = captured.pod.dial(captured.peer_address[version], 8081, **APP)
    assert (answer["port"], answer["peer"]) == (8081, captured.pod_address[version])


@both_families
@pytest.mark.parametrize("owner", [APP, SIDECAR], ids=["application", "sidecar"])
def test_loopback_stays_inside_the_pod(captured: Pair, version: int, owner: dict[str, int]) -> None:
    answer = captured.pod.dial(LOOPBACK[version], 8080, **owner)
    assert (answer["port"], answer["original"]) == (8080, None)


@both_families
def test_the_application_reaches_its_own_pod_directly(captured: Pair, version: int) -> None:
    answer = captured.pod.dial(captured.pod_address[version], 8080, **APP)
    assert (answer["port"], answer["original"]) == (8080, None)


@both_families
def test_the_sidecar_that_dials_its_own_pod_comes_in_by_the_front_door(captured: Pair, version: int) -> None:
    pod = captured.pod_address[version]
    answer = captured.pod.dial(pod, 8080, **SIDECAR)
    assert (answer["port"], answer["original"]) == (15006, [pod, 8080])


@both_families
@pytest.mark.parametrize("where", ["pod", "loopback"])
def test_the_inbound_side_reaches_its_application(captured: Pair, version: int, where: str) -> None:
    host = captured.pod_address[version] if where == "pod" else LOOPBACK[version]
    answer = captured.pod.dial(host, 8080, source=INBOUND_SOURCE[version], **SIDECAR)
    assert (answer["port"], answer["peer"]) == (8080, INBOUND_SOURCE[version])


@both_families
def test_excluded_networks_and_interfaces_are_not_captured(clean_pair: Pair, version: int) -> None:
    pod, peer = clean_pair.pod, clean_pair.peer_address[version]
    pod.qbitel_init("--exclude-outbound-cidrs", f"{peer},192.0.2.0/24,2001:db8::/32")
    assert pod.dial(peer, 8080, **APP)["port"] == 8080
    pod.qbitel_init("--exclude-interfaces", "eth+")
    assert pod.dial(peer, 8080, **APP)["port"] == 8080
    assert clean_pair.peer.dial(clean_pair.pod_address[version], 8080)["port"] == 8080


@both_families
def test_only_what_is_included_is_captured(clean_pair: Pair, version: int) -> None:
    pod, peer = clean_pair.pod, clean_pair.peer_address[version]
    pod.qbitel_init(
        "--include-inbound-ports", "8000-8080", "--include-outbound-cidrs", "", "--include-outbound-ports", "8081"
    )
    assert pod.dial(peer, 8080, **APP)["port"] == 8080
    assert pod.dial(peer, 8081, **APP)["port"] == 15001
    assert clean_pair.peer.dial(clean_pair.pod_address[version], 8080)["port"] == 15006
    assert clean_pair.peer.dial(clean_pair.pod_address[version], 8081)["port"] == 8081


def test_another_uid_and_other_ports_for_the_sidecar(clean_pair: Pair) -> None:
    pod, peer = clean_pair.pod, clean_pair.peer_address[4]
    pod.qbitel_init("--proxy-uid", "3000", "--proxy-gid", "3001", "--outbound-port", "8081", "--inbound-port", "15053")
    assert pod.dial(peer, 8080, uid=3000, gid=5)["port"] == 8080
    assert pod.dial(peer, 8080, uid=5, gid=3001)["port"] == 8080
    assert pod.dial(peer, 8080, **SIDECAR)["port"] == 8081
    assert clean_pair.peer.dial(clean_pair.pod_address[4], 8080)["port"] == 15053


# Applying, checking, removing


def test_a_second_apply_changes_nothing(clean_pair: Pair) -> None:
    pod = clean_pair.pod
    first = pod.qbitel_init("--exclude-inbound-ports", "22")
    before = pod.rules()
    second = pod.qbitel_init("--exclude-inbound-ports", "22")
    assert "is in place" in first.stdout
    assert "nothing changed" in second.stdout
    assert pod.rules() == before


def test_a_second_apply_does_not_run_iptables_restore(clean_pair: Pair, tmp_path: Path) -> None:
    programs, log = _wrapped(tmp_path, 'echo "$0" >> "$LOG"')
    environment = {"PATH": f"{programs}:{os.environ['PATH']}"}
    clean_pair.pod.qbitel_init(env=environment)
    assert "ip6tables-nft-restore" in log.read_text()
    log.write_text("")
    clean_pair.pod.qbitel_init(env=environment)
    assert "-restore" not in log.read_text()


def test_check_is_silent_when_the_rules_stand(namespace: Namespace, backend: str) -> None:
    namespace.qbitel_init("--ipv6", "on", "--drop-invalid", "--backend", backend)
    answer = namespace.qbitel_init("--ipv6", "on", "--drop-invalid", "--check")
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")


def test_check_says_in_one_line_each_what_was_changed_by_hand(namespace: Namespace, backend: str) -> None:
    namespace.qbitel_init("--ipv6", "on", "--backend", backend)
    namespace.run(f"iptables-{backend}", "-t", "nat", "-D", "QBITEL_INBOUND", "2")
    namespace.run(f"ip6tables-{backend}", "-t", "nat", "-A", "QBITEL_OUTBOUND", "-j", "ACCEPT")
    namespace.run(f"iptables-{backend}", "-t", "nat", "-I", "OUTPUT", "-p", "tcp", "-j", "ACCEPT")
    namespace.run(f"iptables-{backend}", "-t", "nat", "-F", "PREROUTING")
    namespace.run(f"iptables-{backend}", "-t", "mangle", "-N", "QBITEL_OLD")
    namespace.run("ip", "-6", "address", "del", "::6/128", "dev", "lo")
    answer = namespace.qbitel_init("--ipv6", "on", "--check", check=False)
    assert answer.returncode == 1
    lines = [line.split(" -m comment")[0] for line in answer.stdout.splitlines()]
    assert lines == [
        "ipv4 mangle QBITEL_OLD: the chain is left over",
        "ipv4 nat QBITEL_INBOUND: rule 2 is missing: -p tcp -m tcp --dport 15090",
        "ipv4 nat PREROUTING: rule 1 is missing: -p tcp",
        "ipv4 nat OUTPUT: a foreign rule stands before ours: -p tcp -j ACCEPT",
        "ipv6 nat QBITEL_OUTBOUND: rule 10 does not belong here: -j ACCEPT",
        "ipv6 lo: the address ::6/128 is missing",
    ]
    namespace.qbitel_init("--ipv6", "on")
    assert namespace.qbitel_init("--ipv6", "on", "--check").stdout == ""


def test_a_second_apply_of_everything_changes_no_byte(namespace: Namespace, backend: str) -> None:
    arguments = ["--ipv6", "on", "--inbound-mode", "tproxy", "--dns-port", "15053", "--drop-invalid"]
    namespace.qbitel_init(*arguments, "--backend", backend)
    before = namespace.rules(backend)
    assert "nothing changed" in namespace.qbitel_init(*arguments).stdout
    assert namespace.rules(backend) == before
    assert namespace.qbitel_init(*arguments, "--check").stdout == ""


def test_a_difference_is_shown_with_an_exit_code_and_changes_nothing(namespace: Namespace) -> None:
    shown = namespace.qbitel_init("--ipv6", "on", "--inbound-mode", "tproxy", "--diff", check=False)
    assert shown.returncode == 1
    assert "+++ wanted ipv6 mangle (nft)" in shown.stdout
    assert "# ipv6 lo: the address ::6/128 is missing\n" in shown.stdout
    assert "# ipv4 routing: the rule of fwmark 0x836 is missing\n" in shown.stdout
    assert namespace.rules() == ""
    namespace.qbitel_init("--ipv6", "on", "--inbound-mode", "tproxy")
    assert namespace.qbitel_init("--ipv6", "on", "--inbound-mode", "tproxy", "--diff").stdout == ""
    # Back to redirecting: what is left of TPROXY is a difference too.
    lines = namespace.qbitel_init("--ipv6", "on", "--check", check=False).stdout.splitlines()
    assert "ipv4 mangle QBITEL_IN_TPROXY: the chain is left over" in lines
    assert "ipv6 routing: the local route of table 2102 is left over" in lines
    namespace.qbitel_init("--ipv6", "on")
    assert namespace.qbitel_init("--ipv6", "on", "--check").stdout == ""


def test_check_changes_nothing(namespace: Namespace) -> None:
    answer = namespace.qbitel_init("--check", check=False)
    assert answer.returncode == 1
    assert namespace.rules() == ""


def test_foreign_rules_survive_a_change_and_the_cleanup(namespace: Namespace, backend: str) -> None:
    foreign = (
        "*nat\n:THEIRS - [0:0]\n-A PREROUTING -p tcp --dport 1 -j THEIRS\n-A OUTPUT -d 192.0.2.1 -j ACCEPT\n"
        '-A THEIRS -m comment --comment "mentions QBITEL_INBOUND" -j RETURN\nCOMMIT\n'
        "*mangle\n-A PREROUTING -p udp -j ACCEPT\nCOMMIT\n*filter\n-A INPUT -p tcp --dport 9 -j DROP\nCOMMIT\n"
    )
    for program in ("iptables", "ip6tables"):
        text = foreign if program == "iptables" else foreign.replace("192.0.2.1", "2001:db8::1")
        namespace.run(f"{program}-{backend}-restore", "--noflush", text=text)
    before = namespace.rules(backend)
    for arguments in (("--drop-invalid",), ("--exclude-inbound-ports", "22"), ("--drop-invalid",)):
        namespace.qbitel_init("--ipv6", "on", *arguments)
        with_ours = namespace.rules(backend).splitlines()
        assert "QBITEL_OUTBOUND" in " ".join(with_ours)
        assert set(before.splitlines()) <= set(with_ours)
    namespace.qbitel_init("--cleanup")
    assert namespace.rules(backend) == before


def test_cleanup_leaves_nothing_and_a_second_one_changes_nothing(namespace: Namespace, backend: str) -> None:
    namespace.qbitel_init("--ipv6", "on", "--drop-invalid", "--backend", backend)
    assert "::6/128" in namespace.run("ip", "-6", "address", "show", "dev", "lo").stdout
    assert "are removed" in namespace.qbitel_init("--cleanup").stdout
    assert "QBITEL" not in namespace.rules(backend)
    assert "::6/128" not in namespace.run("ip", "-6", "address", "show", "dev", "lo").stdout
    assert "nothing of qbitel" in namespace.qbitel_init("--cleanup").stdout


def test_the_back_end_that_holds_rules_is_used(namespace: Namespace, backend: str) -> None:
    namespace.run(f"iptables-{backend}", "-t", "filter", "-A", "INPUT", "-p", "udp", "--dport", "9", "-j", "ACCEPT")
    assert f"{backend})" in namespace.qbitel_init().stdout
    assert "QBITEL_INBOUND" in namespace.rules(backend)


def test_rules_in_the_other_back_end_are_reported_and_replaced(namespace: Namespace, backend: str) -> None:
    other = {"nft": "legacy", "legacy": "nft"}[backend]
    if namespace.run(f"iptables-{other}", "-t", "nat", "-S", check=False).returncode != 0:
        pytest.skip(f"the kernel has no {other} back end")
    namespace.qbitel_init("--backend", backend)
    answer = namespace.qbitel_init("--backend", other, "--check", check=False)
    assert answer.returncode == 1
    assert f"ipv4 nat QBITEL_INBOUND: the chain is left over (in the other back end, {backend})" in answer.stdout
    namespace.qbitel_init("--backend", other)
    assert "QBITEL" not in namespace.rules(backend)
    assert "QBITEL_INBOUND" in namespace.rules(other)


def test_ipv6_turned_off_takes_its_rules_away(clean_pair: Pair) -> None:
    clean_pair.pod.qbitel_init()
    clean_pair.pod.qbitel_init("--ipv6", "off")
    assert clean_pair.pod.dial(clean_pair.peer_address[6], 8080, **APP)["port"] == 8080
    assert clean_pair.pod.dial(clean_pair.peer_address[4], 8080, **APP)["port"] == 15001


# When things go wrong


def test_nothing_leaks_while_rules_are_swapped(clean_pair: Pair) -> None:
    pod = clean_pair.pod
    pod.qbitel_init()
    dials = ["nsenter", f"--net={pod.path}", sys.executable, str(Path(__file__).with_name("endpoint.py")), "dial"]
    dials += [clean_pair.peer_address[4], "8080", "--uid", "1000", "--gid", "1000"]
    # A dialler that does not wait for the guard to go looks more often; it may give up, but never arrive elsewhere.
    dials += ["--times", "100000", "--timeout", "0.05"]
    with subprocess.Popen(dials, stdout=subprocess.PIPE, text=True) as dialler:
        for _ in range(2):
            pod.qbitel_init("--drop-invalid", "--exclude-inbound-ports", "22")
            pod.qbitel_init()
        dialler.terminate()
        assert dialler.stdout is not None
        # The last line may be cut by the end of the dialler.
        answers = [json.loads(line) for line in dialler.stdout.read().split("\n")[:-1]]
    assert len(answers) > 20
    arrived = {answer.get("port", answer.get("error")) for answer in answers}
    assert arrived - {"TimeoutError"} == {15001}


def test_a_swap_that_fails_half_way_leaves_the_guard_up_until_the_next_run(clean_pair: Pair, tmp_path: Path) -> None:
    pod, peer = clean_pair.pod, clean_pair.peer_address[4]
    pod.qbitel_init("--exclude-outbound-ports", "8081")
    # The first text that ip6tables-restore gets is the guard; everything after that is refused.
    programs, _ = _wrapped(
        tmp_path,
        'case "$0" in *ip6tables-nft-restore) [ -e "$LOG" ] && { echo "no memory" >&2; exit 1; }; touch "$LOG";; esac',
    )
    broken = {"PATH": f"{programs}:{os.environ['PATH']}"}
    answer = pod.qbitel_init(env=broken, check=False)
    assert answer.returncode == 2
    assert answer.stderr.count("\n") == 1
    assert "no memory" in answer.stderr
    assert "the guard drops new connections" in answer.stderr
    for host in clean_pair.peer_address.values():
        assert pod.dial(host, 8081, timeout=0.7, **APP) == {"error": "TimeoutError"}
    pod.qbitel_init("--exclude-outbound-ports", "8081")
    assert pod.dial(peer, 8081, **APP)["port"] == 8081
    assert "QBITEL_GUARD" not in pod.rules()


def test_cleanup_takes_away_a_guard_that_was_left_behind(namespace: Namespace) -> None:
    text = "*mangle\n:QBITEL_GUARD - [0:0]\n-A QBITEL_GUARD -p tcp -j DROP\n-I OUTPUT -j QBITEL_GUARD\nCOMMIT\n"
    namespace.run("iptables-nft-restore", "--noflush", text=text)
    namespace.qbitel_init("--cleanup")
    assert "QBITEL" not in namespace.rules()


def test_several_at_the_same_time_all_succeed_and_leave_one_set_of_rules(namespace: Namespace) -> None:
    script = "import sys; from cli.main import main; sys.exit(main(['init', '--ipv6', 'on', '--drop-invalid']))"
    command = ["nsenter", f"--net={namespace.path}", sys.executable, "-c", script]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    ended = [(*process.communicate(timeout=60), process.returncode) for process in running]
    assert [(errors, code) for _, errors, code in ended] == [("", 0)] * 4
    assert namespace.qbitel_init("--ipv6", "on", "--drop-invalid", "--check").stdout == ""


def test_a_pod_without_ipv6_does_not_need_ip6tables(namespace: Namespace, tmp_path: Path) -> None:
    answer = namespace.qbitel_init(env=_without_ip6tables(tmp_path))
    assert "interception of ipv4 is in place" in answer.stdout
    assert answer.stderr == ""


def test_a_pod_with_only_link_local_addresses_gets_a_notice_without_ip6tables(
    namespace: Namespace, tmp_path: Path
) -> None:
    namespace.run("ip", "address", "add", "fe80::2/64", "dev", "lo")
    answer = namespace.qbitel_init(env=_without_ip6tables(tmp_path))
    assert "interception of ipv4 is in place" in answer.stdout
    assert "IPv6 is not intercepted: only link-local addresses" in answer.stderr


def test_a_pod_with_ipv6_is_refused_without_ip6tables(namespace: Namespace, tmp_path: Path) -> None:
    namespace.run("ip", "address", "add", "2001:db8::2/64", "dev", "lo")
    answer = namespace.qbitel_init(env=_without_ip6tables(tmp_path), check=False)
    assert answer.returncode == 2
    assert answer.stderr.count("\n") == 1
    assert "the pod has 2001:db8::2" in answer.stderr
    assert "--ipv6 off" in answer.stderr
    assert namespace.rules() == ""


def test_without_permission_one_line_says_what_to_do(namespace: Namespace) -> None:
    script = "import sys; from cli.main import main; sys.exit(main(['init', *sys.argv[1:]]))"
    for action in ((), ("--check",), ("--cleanup",)):
        unprivileged = (*WITHOUT_NET_ADMIN, sys.executable, "-c", script, *action)
        answer = namespace.run(*unprivileged, check=False)
        assert answer.returncode == 2
        assert answer.stderr.count("\n") == 1
        assert "no permission" in answer.stderr
        assert "NET_ADMIN" in answer.stderr


def test_a_dry_run_needs_no_permission_and_touches_nothing(namespace: Namespace) -> None:
    script = "import sys; from cli.main import main; sys.exit(main(['init', '--dry-run', '--ipv6', 'on']))"
    printed = namespace.run(*WITHOUT_NET_ADMIN, sys.executable, "-c", script).stdout
    assert namespace.rules() == ""
    # What it prints is what iptables-restore takes.
    v4, v6 = printed.split("# ipv6: ip6tables-restore --noflush\n")
    namespace.run("iptables-nft-restore", "--noflush", text=v4)
    namespace.run("ip6tables-nft-restore", "--noflush", text=v6)
    left = namespace.qbitel_init("--check", "--ipv6", "on", check=False)
    assert left.stdout == "ipv6 lo: the address ::6/128 is missing\n"


def _wrapped(folder: Path, script: str) -> tuple[Path, Path]:
    """Make programs that run `script` and then the real iptables; return their folder and a file to log to."""
    programs = folder / "bin"
    programs.mkdir()
    for name in ("iptables-nft", "ip6tables-nft"):
        for suffix in ("", "-save", "-restore"):
            program = programs / f"{name}{suffix}"
            real = shutil.which(f"{name}{suffix}")
            program.write_text(f'#!/bin/sh\nLOG={folder / "log"}\n{script}\nexec {real} "$@"\n')
            program.chmod(0o755)
    return programs, folder / "log"


def _without_ip6tables(folder: Path) -> dict[str, str]:
    """An environment in which every ip6tables refuses, as it does on a kernel without the modules."""
    for kind in ("nft", "legacy"):
        for suffix in ("", "-save", "-restore"):
            program = folder / f"ip6tables-{kind}{suffix}"
            program.write_text("#!/bin/sh\necho 'table does not exist (do you need to insmod?)' >&2\nexit 3\n")
            program.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}
