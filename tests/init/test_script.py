"""The script of the init container: what it does to real network namespaces, and what it costs."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from init.config import BackendChoice, InboundMode, InterceptionConfig, IPv6Mode, parse_networks
from init.plan import make_plan
from init.rules import Family
from init.script import LARGEST, render_script
from init.state import differences, parse_save
from mesh.errors import UserError
from tests.init.configs import CONFIGS
from tests.init.conftest import ENDPOINT, need_nft
from tests.init.measuring import NoControlGroup, measure
from tests.init.test_foreign import ISTIO
from tests.init.test_goal import BESIDE, UNLISTED
from tests.init.test_plan import configs

if TYPE_CHECKING:
    from tests.init.conftest import Namespace, Pair

APP = {"uid": 1000, "gid": 1000}
DUAL = InterceptionConfig(ipv6=IPv6Mode.ON)
IPV4 = InterceptionConfig(ipv6=IPv6Mode.OFF)


# Both folders of programs hidden: then there is no iptables, and a shell that runs already does not mind.
WITHOUT_PROGRAMS = (
    "exec 3</dev/null; mount -t tmpfs none /usr/sbin && { [ -L /sbin ] || mount -t tmpfs none /sbin; } && "
    'PATH=/usr/bin:/bin exec dash -c "$0"'
)


# The text


@given(configs, st.booleans())
@settings(max_examples=40)
def test_every_script_is_one_that_a_shell_and_a_pod_can_take(config: InterceptionConfig, reconcile: bool) -> None:
    text = render_script(config, reconcile=reconcile)
    assert text.isascii()
    # In a pod's `command`, `$$` is an escape and `$(NAME)` a variable of the container; we have neither.
    assert "$$" not in text
    assert not re.search(r"\$\([-._a-zA-Z][-._a-zA-Z0-9]*\)", text)
    dash = shutil.which("dash")
    if dash:
        subprocess.run([dash, "-n"], input=text, text=True, check=True)


def test_a_configuration_of_too_many_rules_is_refused_with_what_to_do() -> None:
    networks = parse_networks("", ",".join(f"10.{one}.{two}.0/24" for one in range(8) for two in range(256)))
    with pytest.raises(UserError, match=f"a container takes {LARGEST}; use wider networks"):
        render_script(InterceptionConfig(exclude_outbound_cidrs=networks))


# What it does


@pytest.mark.root
def test_every_configuration_stands_after_it_and_a_second_run_changes_no_byte(
    namespace: Namespace, backend: str
) -> None:
    for name, config in CONFIGS.items():
        script = render_script(dataclasses.replace(config, ipv6=IPv6Mode.ON, backend=BackendChoice(backend)))
        # Each finds the rules of the one before it, and the guard goes up while it removes them.
        namespace.script(script)
        before = namespace.saved(backend)
        for family in Family:
            assert differences(make_plan(config, family), parse_save(before[family])) == {}, name
        assert "nothing changed" in namespace.script(script).stdout, name
        assert namespace.saved(backend) == before, name


@pytest.mark.root
def test_it_leaves_the_very_bytes_that_qbitel_init_leaves(namespace: Namespace, backend: str) -> None:
    arguments = ("--ipv6", "on", "--drop-invalid", "--dns-port", "15053", "--backend", backend)
    namespace.qbitel_init(*arguments)
    before = namespace.rules(backend)
    assert namespace.qbitel_init(*arguments, "--check").stdout == ""
    namespace.qbitel_init("--cleanup")
    script = namespace.qbitel_init(*arguments, "--script").stdout
    namespace.script(script)
    assert namespace.rules(backend) == before
    assert "nothing changed" in namespace.qbitel_init(*arguments).stdout


@pytest.mark.root
@pytest.mark.parametrize("shell", ["dash", "bash", "ksh", "busybox"])
def test_any_posix_shell_will_do(namespace: Namespace, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    words = {"bash": ["bash", "--posix"], "busybox": ["busybox", "sh"]}.get(shell, [shell])
    namespace.run(*words, "-c", render_script(DUAL))
    assert namespace.qbitel_init("--ipv6", "on", "--check").stdout == ""


@pytest.mark.root
@pytest.mark.parametrize("change", ["-D QBITEL_INBOUND 2", "-I OUTPUT -p tcp -j ACCEPT", "-N QBITEL_OLD", "-F OUTPUT"])
def test_what_was_changed_by_hand_is_mended_and_foreign_rules_stay(
    namespace: Namespace, backend: str, change: str
) -> None:
    script = render_script(InterceptionConfig(ipv6=IPv6Mode.ON, backend=BackendChoice(backend)))
    namespace.run(f"iptables-{backend}", "-t", "nat", "-A", "OUTPUT", "-d", "192.0.2.1", "-j", "ACCEPT")
    namespace.script(script)
    namespace.run(f"iptables-{backend}", "-t", "nat", *change.split())
    foreign = {line for line in namespace.rules(backend).splitlines() if "QBITEL" not in line}
    assert namespace.qbitel_init("--ipv6", "on", "--check", check=False).returncode == 1
    namespace.script(script)
    assert namespace.qbitel_init("--ipv6", "on", "--check").stdout == ""
    assert foreign == {line for line in namespace.rules(backend).splitlines() if "QBITEL" not in line}


@pytest.mark.root
def test_a_pod_of_another_mesh_is_refused_and_with_reconcile_taken_over(namespace: Namespace, backend: str) -> None:
    namespace.run(f"iptables-{backend}-restore", "--noflush", text=ISTIO)
    before = namespace.rules(backend)
    refused = namespace.script(render_script(IPV4), check=False)
    assert refused.returncode == 2
    assert refused.stderr.startswith("qbitel-init: Istio intercepts this pod already")
    assert namespace.rules(backend) == before
    namespace.script(render_script(IPV4, reconcile=True))
    assert "ISTIO" not in namespace.rules(backend)
    assert f"{backend})" in namespace.qbitel_init("--ipv6", "off").stdout
    assert namespace.qbitel_init("--ipv6", "off", "--check").stdout == ""


@pytest.mark.root
def test_rules_in_the_other_back_end_are_removed(namespace: Namespace, backend: str) -> None:
    other = {"nft": "legacy", "legacy": "nft"}[backend]
    if namespace.run(f"iptables-{other}", "-t", "nat", "-S", check=False).returncode != 0:
        pytest.skip(f"the kernel has no {other} back end")
    namespace.script(render_script(IPV4), env={"QBITEL_BACKEND": backend})
    # Left to itself it stays where its rules are.
    assert f"({backend})" in namespace.script(render_script(IPV4)).stdout
    namespace.script(render_script(IPV4), env={"QBITEL_BACKEND": other})
    assert "QBITEL" not in namespace.rules(backend)
    assert "QBITEL_INBOUND" in namespace.rules(other)


@pytest.mark.root
def test_policy_routing_comes_with_tproxy_and_goes_with_it(namespace: Namespace) -> None:
    tproxy = InterceptionConfig(ipv6=IPv6Mode.ON, inbound_mode=InboundMode.TPROXY)
    for _ in range(2):
        namespace.script(render_script(tproxy))
        assert namespace.qbitel_init("--ipv6", "on", "--inbound-mode", "tproxy", "--check").stdout == ""
        assert namespace.run("ip", "rule", "show").stdout.count("lookup 2102") == 1
    namespace.script(render_script(DUAL))
    assert namespace.qbitel_init("--ipv6", "on", "--check").stdout == ""


# IPv6


@pytest.mark.root
def test_ipv6_follows_the_addresses_of_the_pod_and_the_environment(namespace: Namespace, tmp_path: Path) -> None:
    script = render_script(InterceptionConfig())
    broken = _programs(tmp_path, {"ip6tables": "echo 'do you need to insmod?' >&2; exit 3"})
    # No address: nobody misses ip6tables.
    assert namespace.script(script, env=broken).stdout == "qbitel-init: interception of ipv4 is in place (nft)\n"
    # A link-local one alone makes no IPv6 pod: a notice.
    namespace.run("ip", "address", "add", "fe80::2/64", "dev", "lo", "nodad")
    answer = namespace.script(script, env=broken)
    assert "IPv6 is not intercepted: only link-local addresses" in answer.stderr
    # With an address that others reach, the pod would leak.
    namespace.run("ip", "address", "add", "2001:db8::2/64", "dev", "lo", "nodad")
    answer = namespace.script(script, env=broken, check=False)
    assert answer.returncode == 2
    assert "IPv6 cannot be intercepted, but the pod has it" in answer.stderr
    assert namespace.script(script, env={**broken, "QBITEL_IPV6": "off"}).returncode == 0
    assert "ipv4 and ipv6" in namespace.script(script).stdout
    assert namespace.qbitel_init("--check").stdout == ""
    # What is not wanted any more is taken away.
    namespace.script(script, env={"QBITEL_IPV6": "off"})
    assert namespace.qbitel_init("--ipv6", "off", "--check").stdout == ""


@pytest.mark.root
@pytest.mark.parametrize(
    "left",
    ["*nat\n:QBITEL_INBOUND - [0:0]\nCOMMIT\n", "*nat\n:QBITEL_INBOUND - [0:0]\n-A OUTPUT -j QBITEL_INBOUND\nCOMMIT\n"],
    ids=["chain", "jump"],
)
def test_rules_that_are_left_in_ipv6_alone_are_found_all_the_same(
    namespace: Namespace, backend: str, left: str
) -> None:
    namespace.run(f"ip6tables-{backend}-restore", "--noflush", text=left)
    answer = namespace.script(render_script(DUAL), env={"QBITEL_BACKEND": backend})
    assert answer.stderr == ""
    assert namespace.qbitel_init("--ipv6", "on", "--check").stdout == ""


@pytest.mark.root
def test_a_fresh_pod_with_ipv6_and_without_ip6tables_fails_closed(namespace: Namespace, tmp_path: Path) -> None:
    broken = _programs(tmp_path, {"ip6tables": "echo 'do you need to insmod?' >&2; exit 3"})
    namespace.run("ip", "address", "add", "2001:db8::2/64", "dev", "lo", "nodad")
    answer = namespace.script(render_script(InterceptionConfig()), env=broken, check=False)
    assert answer.returncode == 2
    assert answer.stderr.count("\n") == 1
    assert "IPv6 cannot be intercepted, but the pod has it" in answer.stderr


@pytest.mark.root
def test_a_fresh_pod_with_link_local_addresses_alone_does_without_ip6tables(
    namespace: Namespace, tmp_path: Path
) -> None:
    broken = _programs(tmp_path, {"ip6tables": "echo 'do you need to insmod?' >&2; exit 3"})
    namespace.run("ip", "address", "add", "fe80::2/64", "dev", "lo", "nodad")
    answer = namespace.script(render_script(InterceptionConfig()), env=broken)
    assert "IPv6 is not intercepted: only link-local addresses" in answer.stderr
    assert namespace.qbitel_init("--ipv6", "off", "--check").stdout == ""


# When things go wrong


@pytest.mark.root
def test_nothing_leaks_while_the_script_swaps_rules(clean_pair: Pair) -> None:
    pod, address = clean_pair.pod, clean_pair.pod_address[4]
    # From one table to another and back: between two transactions, neither of them captures.
    scripts = [render_script(dataclasses.replace(DUAL, inbound_mode=mode)) for mode in InboundMode]
    pod.script(scripts[0])
    dials = ["nsenter", f"--net={clean_pair.peer.path}", sys.executable, ENDPOINT, "dial", address, "8080"]
    # By TPROXY nothing arrives here, because the listener is not transparent: then the dialler gives up.
    dials += ["--times", "100000", "--timeout", "0.02"]
    answers: list[dict[str, object]] = []
    with subprocess.Popen(dials, stdout=subprocess.PIPE, text=True) as dialler:
        assert dialler.stdout is not None
        # Swaps and connections take turns, however slow the machine is: thirty of each at least.
        for number in range(30):
            answers.append(json.loads(dialler.stdout.readline()))
            pod.script(scripts[number % 2 ^ 1])
        dialler.terminate()
        answers += [json.loads(line) for line in dialler.stdout.read().split("\n")[:-1]]
    arrived = {answer.get("port", answer.get("error")) for answer in answers}
    assert 15006 in arrived
    assert arrived <= {15006, "TimeoutError"}


@pytest.mark.root
def test_a_swap_that_fails_leaves_the_guard_up_until_the_next_run(clean_pair: Pair, tmp_path: Path) -> None:
    pod, peer = clean_pair.pod, clean_pair.peer_address[4]
    script = render_script(dataclasses.replace(DUAL, exclude_outbound_cidrs=parse_networks("", peer)))
    pod.script(script)
    # Restores of IPv6: the first one is the guard's; the next one is refused.
    once = f'[ -e {tmp_path}/once ] && {{ echo "no memory" >&2; exit 1; }}; touch {tmp_path}/once'
    broken = _programs(tmp_path, {"ip6tables-nft-restore": once})
    failed = pod.script(render_script(dataclasses.replace(DUAL, drop_invalid=True)), env=broken, check=False)
    assert failed.returncode == 2
    assert "no memory" in failed.stderr
    assert failed.stderr.splitlines()[-1].startswith("qbitel-init: ip6tables-nft-restore refused the rules")
    assert "the guard drops new connections" in failed.stderr
    assert pod.dial(peer, 8080, timeout=0.7, **APP) == {"error": "TimeoutError"}
    pod.script(script)
    assert pod.dial(peer, 8080, **APP)["port"] == 8080
    assert "QBITEL_GUARD" not in pod.rules()


@pytest.mark.root
@pytest.mark.parametrize("left", ["-A OUTPUT -j QBITEL_GUARD\n-A OUTPUT -j QBITEL_GUARD\n", ""], ids=["jumps", "alone"])
@pytest.mark.parametrize("other", ["", "-A QBITEL_INBOUND -j ACCEPT\n"], ids=["standing", "changed"])
def test_a_guard_that_was_left_behind_in_one_family_goes(namespace: Namespace, left: str, other: str) -> None:
    namespace.script(render_script(DUAL))
    text = f"*mangle\n:QBITEL_GUARD - [0:0]\n-A QBITEL_GUARD -p tcp -j DROP\n{left}COMMIT\n*nat\n{other}COMMIT\n"
    namespace.run("ip6tables-nft-restore", "--noflush", text=text)
    namespace.script(render_script(DUAL))
    assert namespace.qbitel_init("--ipv6", "on", "--check").stdout == ""


@pytest.mark.root
def test_a_kernel_without_nfts_nat_table_gets_legacy_rules(namespace: Namespace, tmp_path: Path) -> None:
    if namespace.run("iptables-legacy", "-t", "nat", "-S", check=False).returncode != 0:
        pytest.skip("the kernel has no legacy back end")
    broken = _programs(tmp_path, {"iptables-nft-restore": "echo 'table nat does not exist' >&2; exit 4"})
    assert "is in place (legacy)" in namespace.script(render_script(IPV4), env=broken).stdout
    assert "QBITEL_INBOUND" in namespace.rules("legacy")
    refused = namespace.script(render_script(IPV4), env={**broken, "QBITEL_BACKEND": "nft"}, check=False)
    assert (refused.returncode, "does not exist" in refused.stderr) == (2, True)


@pytest.mark.root
def test_without_permission_or_programs_one_line_says_what_to_do(namespace: Namespace) -> None:
    unprivileged = ("setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin")
    answer = namespace.run(*unprivileged, "dash", "-c", render_script(IPV4), check=False)
    assert answer.returncode == 2
    assert answer.stderr.splitlines()[-1].startswith("qbitel-init: ")
    assert "needs NET_ADMIN, NET_RAW" in answer.stderr
    without = namespace.run("unshare", "--mount", "sh", "-c", WITHOUT_PROGRAMS, render_script(IPV4), check=False)
    assert (without.returncode, without.stderr.count("\n")) == (2, 1)
    assert "install iptables" in without.stderr
    wrong = namespace.script(render_script(InterceptionConfig()), env={"QBITEL_IPV6": "perhaps"}, check=False)
    assert (wrong.returncode, wrong.stderr) == (2, "qbitel-init: QBITEL_IPV6: 'perhaps' is not auto, on or off\n")


@pytest.mark.root
@pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
def test_where_a_table_cannot_be_read_nothing_is_changed(namespace: Namespace, first: bool) -> None:
    need_nft()
    if not first:
        namespace.script(render_script(IPV4))
    namespace.run("nft", UNLISTED)
    before = namespace.run("nft", "list", "ruleset").stdout
    answer = namespace.script(render_script(IPV4, reconcile=True), check=False)
    assert (answer.returncode, answer.stdout, answer.stderr.count("\n")) == (2, "", 1)
    assert answer.stderr.startswith("qbitel-init: iptables-nft-save cannot list the table nat, because")
    assert namespace.run("nft", "list", "ruleset").stdout == before


@pytest.mark.root
def test_chains_of_others_that_iptables_lists_without_are_no_obstacle(namespace: Namespace) -> None:
    need_nft()
    namespace.run("nft", BESIDE)
    namespace.script(render_script(IPV4))
    assert namespace.qbitel_init("--ipv6", "off", "--check").stdout == ""
    assert "nothing changed" in namespace.script(render_script(IPV4)).stdout


@pytest.mark.root
def test_rules_that_somebody_removes_at_once_are_not_reported_as_standing(namespace: Namespace, tmp_path: Path) -> None:
    namespace.run("iptables-nft", "-A", "INPUT", "-p", "udp", "-j", "ACCEPT")
    real = shutil.which("iptables-nft-restore")
    vandal = f'{real} "$@"; exec iptables-nft -t nat -D QBITEL_INBOUND 1'
    answer = namespace.script(
        render_script(IPV4), env=_programs(tmp_path, {"iptables-nft-restore": vandal}), check=False
    )
    assert answer.returncode == 2
    assert "something else changes those of iptables-nft" in answer.stderr


# What it costs


@pytest.mark.root
def test_it_takes_less_than_ten_mebibytes_warm_or_cold(namespace: Namespace, backend: str) -> None:
    script = render_script(InterceptionConfig(ipv6=IPv6Mode.ON, backend=BackendChoice(backend)))
    try:
        costs = [measure(namespace, script, cold=True), measure(namespace, script)]
    except NoControlGroup as reason:
        pytest.skip(str(reason))
    assert all(0 < cost.peak < 10 * 2**20 for cost in costs)
    assert all(cost.cpu > 0 for cost in costs)


@pytest.mark.root
@pytest.mark.parametrize(
    ("ipv6", "first", "again"),
    [
        (IPv6Mode.OFF, ["iptables-nft-restore"], ["iptables-nft-save"]),
        (
            IPv6Mode.ON,
            ["ip", "iptables-nft-restore", "ip6tables-nft-restore"],
            ["iptables-nft-save", "ip6tables-nft-save"],
        ),
    ],
)
@pytest.mark.parametrize("nft", ["works", "refuses"])
def test_it_starts_no_program_that_it_does_not_need(
    namespace: Namespace, tmp_path: Path, ipv6: IPv6Mode, first: list[str], again: list[str], nft: str
) -> None:
    need_nft()
    # Programs are what its time goes to: ten milliseconds are seven or eight of them.
    log = tmp_path / "log"
    note = f'echo "${{0##*/}}" >>{log}'
    scripts = {**dict.fromkeys(("iptables", "ip6tables", "ip"), note), "nft": note if nft == "works" else "exit 1"}
    noted = _programs(tmp_path, scripts)
    script = render_script(InterceptionConfig(ipv6=ipv6))
    # Where nft can say that there is no table at all, that takes the place of a look at iptables' own.
    before = ["nft"] if nft == "works" else []
    for expected in ([*(before or ["iptables-nft-save"]), *first], [*before, *again]):
        log.write_text("")
        namespace.script(script, env=noted)
        assert log.read_text().split() == expected


def _programs(folder: Path, scripts: dict[str, str]) -> dict[str, str]:
    """An environment in which programs whose names start so run a line of shell, and then do what they do."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    for start, script in scripts.items():
        for name in (*_NAMES, "ip", "nft"):
            if name == start or (start in ("iptables", "ip6tables") and name.startswith(start)):
                _write(programs / name, f'{script}\nexec {shutil.which(name)} "$@"')
    return {"PATH": f"{programs}:{os.environ['PATH']}"}


_NAMES = [
    f"{name}-{kind}{suffix}"
    for name in ("iptables", "ip6tables")
    for kind in ("nft", "legacy")
    for suffix in ("", "-save", "-restore")
]


def _write(program: Path, script: str) -> None:
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
