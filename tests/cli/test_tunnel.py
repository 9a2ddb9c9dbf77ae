"""`qbitel tunnel client|server`: what bad input gets, and what the flags become."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli import tunnel
from cli.main import main
from proxy.config import Direction, Endpoint

FILES = ("--cert", "c", "--key", "k", "--ca", "r")
ENDS = ("--listen", "127.0.0.1:0", "--target", "127.0.0.1:9")


def refusal(capsys, *words: object) -> str:
    """Run `qbitel tunnel WORDS`, which must fail with one line and exit code 2; return the line."""
    try:
        code = main(["tunnel", *map(str, words)])
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    assert code == 2
    (line,) = captured.err.splitlines()
    assert line.startswith("qbitel tunnel")
    return line


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "required: {client,server}"),
        (["sideways"], "invalid choice: 'sideways'"),
        (["client", *FILES], "required: --listen, --target"),
        (["server", *ENDS], "required: --cert, --key, --ca"),
        (["client", *ENDS, *FILES], "c does not exist"),
        (["client", *ENDS, *FILES, "--expect", "web"], "--expect: 'web' does not start with spiffe://"),
        (["server", *ENDS, *FILES, "--allow", "spiffe://a"], "--allow: "),
        (["server", *ENDS, *FILES, "--expect", "spiffe://a/b"], "unrecognized arguments"),
        (["client", *ENDS, *FILES, "--profile", "x"], "is no profile"),
        (["client", *ENDS, *FILES, "--server-name", "ex ample"], "is no DNS name"),
        (["server", *ENDS, *FILES, "--provider", "x"], "invalid choice: 'x'"),
        (["server", *ENDS, *FILES, "--key-log", "k"], "only with QBITEL_DEVELOPMENT=1"),
        (["server", *ENDS, *FILES, "--trust-domain", "A"], "is no trust domain"),
        (["server", *ENDS, *FILES, "--metrics", "9090"], "is not HOST:PORT"),
    ],
)
def test_a_wrong_flag_is_one_line(capsys, words, expected):
    assert expected in refusal(capsys, *words)


def configured(*words: str):
    return tunnel._config(tunnel._parser().parse_args(words))


def test_the_client_expects_what_it_is_told():
    config = configured(
        "client", *ENDS, *FILES, "--expect", "spiffe://a/b", "--server-name", "example.org", "--workers", "2",
        "--metrics", "127.0.0.1:1", "--profile", "hybrid-l5",
    )  # fmt: skip
    assert config.listeners[0].direction is Direction.OUTBOUND
    assert config.peers == {"spiffe://a/b"}
    assert config.server_name == "example.org"
    assert config.workers == 2
    assert config.metrics == (Endpoint("127.0.0.1", 1),)
    assert [profile.name for profile in config.profiles] == ["hybrid-l5"]


def test_the_server_allows_several_after_one_flag_or_after_several():
    config = configured("server", *ENDS, *FILES, "--allow", "spiffe://a/b", "spiffe://a/c", "--allow", "spiffe://a/d")
    assert config.listeners[0].direction is Direction.INBOUND
    assert config.peers == {"spiffe://a/b", "spiffe://a/c", "spiffe://a/d"}


def test_what_is_held_and_what_is_revoked_are_files_of_their_own():
    config = configured("client", *ENDS, *FILES, "--intermediates", "i", "--crl", "l")
    assert config.files is not None
    assert [path.name for path in config.files.trust.paths()] == ["r", "l", "i"]
    assert not config.files.trust.crl_is_optional


def test_without_a_trust_domain_any_is_let_in():
    assert configured("server", *ENDS, *FILES).trust_domains == frozenset()
    assert configured("server", *ENDS, *FILES, "--trust-domain", "a.b").trust_domains == {"a.b"}


def test_what_both_ends_share_reaches_the_proxy():
    for end in ("client", "server"):
        config = configured(
            end, *ENDS, *FILES, "--crl", "l", "--key-log", "k", "--provider", "liboqs", "--profile", "cnsa2,qbitel"
        )
        assert config.files.trust.crl == Path("l")
        assert not config.files.trust.crl_is_optional
        assert config.key_log == Path("k")
        assert config.provider == "liboqs"
        assert config.profile_names == "cnsa2,qbitel"
