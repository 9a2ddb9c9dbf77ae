"""`qbitel init` as a command: its flags reach the plan, its errors are one line, its exit codes are those it promises.

What it does to a real network namespace is in tests/init/test_apply.py.
"""

from __future__ import annotations

import json

import pytest

from cli.init import main
from cli.main import main as qbitel
from init.config import InterceptionConfig, IPv6Mode, PortRange
from init.script import render_script


def test_a_dry_run_prints_the_rules_for_each_flag(capsys: pytest.CaptureFixture[str]) -> None:
    flags = {
        "--include-inbound-ports": ("8000-8010", "--dport 8000:8010"),
        "--exclude-inbound-ports": ("22", '--dport 22 -m comment --comment "inbound port is excluded"'),
        "--include-outbound-ports": ("443", '--dport 443 -m comment --comment "outbound port is included"'),
        "--exclude-outbound-ports": ("25", "-p udp -m udp --dport 25"),
        "--include-outbound-cidrs": ("10.0.0.0/8", "-d 10.0.0.0/8"),
        "--exclude-outbound-cidrs": ("fd00:1::/32", "-d fd00:1::/32"),
        "--exclude-interfaces": ("eth1", "-i eth1"),
        "--proxy-uid": ("3000", "! --uid-owner 3000"),
        "--proxy-gid": ("3001", "! --gid-owner 3001"),
        "--outbound-port": ("16001", "--to-ports 16001"),
        "--inbound-port": ("16006", "--to-ports 16006"),
        "--ipv6": ("on", "# ipv6: ip6tables-restore"),
        "--include-inbound-sources": ("10.7.0.0/16", '-s 10.7.0.0/16 -m comment --comment "source is included"'),
        "--exclude-inbound-sources": ("10.7.7.7", '-s 10.7.7.7/32 -m comment --comment "source is exempt"'),
        "--include-uids": ("1000-1999", '--uid-owner 1000-1999 -m comment --comment "user is included"'),
        "--exclude-uids": ("1001", '--uid-owner 1001 -m comment --comment "user is excluded"'),
        "--include-gids": ("50", '--gid-owner 50 -m comment --comment "group is included"'),
        "--exclude-gids": ("51", '--gid-owner 51 -m comment --comment "group is excluded"'),
        "--exclude-outbound-ports-for-uids": ("1002:9092", "--dport 9092 -m owner --uid-owner 1002"),
        "--include-interfaces": ("eth0", "-o eth0"),
        "--inbound-mode": ("tproxy", "-j TPROXY --on-port 16006"),
        "--dns-port": ("5353", "-p udp -m udp --dport 53"),
    }
    arguments = [word for flag, (value, _) in flags.items() for word in (flag, value)]
    assert main(["--dry-run", "--drop-invalid", *arguments]) == 0
    printed = capsys.readouterr().out
    assert [flag for flag, (_, rule) in flags.items() if rule not in printed] == []
    assert "--ctstate INVALID" in printed


def test_a_dry_run_as_json_has_every_rule_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--dry-run", "--json", "--ipv6", "on", "--inbound-mode", "tproxy"]) == 0
    families = json.loads(capsys.readouterr().out)["families"]
    assert list(families) == ["ipv4", "ipv6"]
    assert families["ipv6"]["before"] == [
        "ip -6 address add ::6/128 dev lo",
        "ip -6 route add local default dev lo table 2102",
        "ip -6 rule add priority 2102 fwmark 0x836 lookup 2102",
    ]
    nat = families["ipv4"]["tables"]["nat"]
    assert {"from": "OUTPUT", "reason": "what this pod dials", "target": "QBITEL_OUTBOUND"}.items() <= nat["jumps"][
        0
    ].items()
    for table in families["ipv4"]["tables"].values():
        for rules in table["chains"].values():
            assert all(rule["reason"] in rule["rule"] for rule in rules)
    assert main(["--dry-run", "--ipv6", "on", "--inbound-mode", "tproxy"]) == 0
    printed = capsys.readouterr().out
    assert families["ipv4"]["text"] in printed
    assert all(f"# ipv6: {command}\n" in printed for command in families["ipv6"]["before"])


def test_the_script_is_printed_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--script", "--reconcile", "--ipv6", "off", "--exclude-inbound-ports", "22"]) == 0
    captured = capsys.readouterr()
    wanted = InterceptionConfig(exclude_inbound_ports=(PortRange(22, 22),), ipv6=IPv6Mode.OFF)
    assert captured.out == render_script(wanted, reconcile=True)
    assert captured.err == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--json"], "--json is a form of --dry-run"),
        (["--check", "--reconcile"], "--reconcile is about what is removed"),
        (["--dry-run", "--reconcile"], "--reconcile is about what is removed"),
        (["--check", "--validate"], "--validate follows applying"),
        (["--cleanup", "--validate"], "--validate follows applying"),
        (["--script", "--validate"], "--validate follows applying"),
    ],
)
def test_flags_that_contradict_each_other_are_refused_in_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert qbitel(["init", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert words in captured.err


def test_ipv6_off_leaves_it_out_of_a_dry_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--dry-run", "--ipv6", "off"]) == 0
    assert "ipv6" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--exclude-inbound-ports", "http"], "--exclude-inbound-ports: 'http' is not a port"),
        (["--include-inbound-ports", "*,80"], "--include-inbound-ports: '*' means all"),
        (["--include-outbound-ports", "80-70"], "--include-outbound-ports: '80-70' starts above its end"),
        (["--exclude-outbound-ports", "0"], "--exclude-outbound-ports: '0' is not a port"),
        (["--include-outbound-cidrs", "10.0.0.0/99"], "--include-outbound-cidrs: '10.0.0.0/99' is not a network"),
        (["--exclude-outbound-cidrs", "x"], "--exclude-outbound-cidrs: 'x' is not a network"),
        (["--exclude-interfaces", "lo"], "--exclude-interfaces: 'lo' covers lo"),
        (["--include-inbound-sources", "::/129"], "--include-inbound-sources: '::/129' is not a network"),
        (["--exclude-inbound-sources", "x"], "--exclude-inbound-sources: 'x' is not a network"),
        (["--include-inbound-sources", ""], "--include-inbound-sources: an empty list"),
        (["--include-uids", ""], "--include-uids: an empty list"),
        (["--exclude-gids", "wheel"], "--exclude-gids: 'wheel' is not a numeric id"),
        (["--exclude-outbound-ports-for-uids", "5"], "--exclude-outbound-ports-for-uids: '5' is not UIDS:PORTS"),
        (["--include-interfaces", "l+"], "--include-interfaces: 'l+' covers lo"),
        (["--dns-port", "x"], "--dns-port: 'x' is not a port"),
        (["--proxy-uid", "0"], "--proxy-uid: 0 would exempt root"),
        (["--proxy-gid", "wheel"], "--proxy-gid: 'wheel' is not a numeric id"),
        (["--inbound-port", "15021"], "--inbound-port: 15021 is the sidecar's health port"),
        (["--outbound-port", "70000"], "--outbound-port: '70000' is not a port"),
        (["--inbound-port", "15001"], "--outbound-port and --inbound-port are both 15001"),
        (["--exclude-inbound-ports", "1\n2"], r"'1\n2' is not a port"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_its_flag(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert qbitel(["init", "--dry-run", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("qbitel init: ")
    assert captured.err.count("\n") == 1
    assert words in captured.err


@pytest.mark.parametrize(
    ("flag", "spellings"),
    [
        *(
            (f"--{which}-{way}-ports", ("80,81", "80-81", "81,80:81,80", "80-81,81"))
            for which in ("include", "exclude")
            for way in ("inbound", "outbound")
        ),
        *(
            (f"--{which}-{whose}", ("0,1000,1001", "1000-1001,0", "0,1001,1000-1001"))
            for which in ("include", "exclude")
            for whose in ("uids", "gids")
        ),
        ("--exclude-outbound-ports-for-uids", ("5-6:25-26", "5:25,26;6:25-26", "6:26;5:25;5-6:25,26")),
    ],
)
def test_two_spellings_of_one_wish_make_the_same_rules(
    flag: str, spellings: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    made = set()
    for spelling in spellings:
        assert main(["--script", flag, spelling, "--include-outbound-cidrs", "10.0.0.0/8"]) == 0
        made.add(capsys.readouterr().out)
    assert len(made) == 1


def test_clean_up_with_a_wrong_value_removes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert qbitel(["init", "--cleanup", "--dns-port", "banana"]) == 2
    assert capsys.readouterr() == ("", "qbitel init: --dns-port: 'banana' is not a port (1 to 65535)\n")


def test_an_option_without_effect_is_said_beside_the_rules_and_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--dry-run", "--json", "--ipv6", "off", "--include-outbound-ports", "443"]) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith("qbitel init: --include-outbound-ports has no effect: it adds to ")
    assert captured.err.count("\n") == 1
    assert json.loads(captured.out)


@pytest.mark.parametrize(
    "arguments", [["--unknown"], ["--check", "--cleanup"], ["--ipv6", "perhaps"], ["--backend", "pf"], ["--dry"]]
)
def test_a_wrong_flag_is_one_line_and_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_help_explains_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "exit codes" in printed
    assert "126 a connection that must be redirected was not" in " ".join(printed.split())
    assert "besides 15090, 15021, 15020" in " ".join(printed.split())
