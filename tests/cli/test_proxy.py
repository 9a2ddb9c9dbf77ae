"""`qbitel proxy`: what bad input gets, and what the flags become."""

from __future__ import annotations

import datetime
import shutil
import socket

import pytest

from certmgr.authority import WorkloadRequest, create_root, issue_workload
from certmgr.files import write_workload
from cli import proxy
from cli.main import main
from mesh.modes import MTLSMode
from mesh.spiffe import SpiffeId
from proxy.config import Direction, Endpoint

ANY_V4 = "0.0.0.0"  # noqa: S104  # what a sidecar's captured ports listen on


@pytest.fixture(scope="module")
def certs(tmp_path_factory):
    """Two folders, a and b, as a sidecar reads them."""
    base = tmp_path_factory.mktemp("certs")
    now = datetime.datetime.now(datetime.UTC)
    root = create_root("CN=root", now)
    for name in ("a", "b"):
        spiffe_id = SpiffeId("cluster.local", ("ns", "default", "sa", name))
        write_workload(base / name, issue_workload(WorkloadRequest(spiffe_id=spiffe_id), root, now), [root.certificate])
    return base


def refusal(capsys, *words: object) -> str:
    """Run `qbitel proxy WORDS`, which must fail with one line and exit code 2; return the line."""
    try:
        code = main(["proxy", *map(str, words)])
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("qbitel proxy: ")
    return line


EXPLICIT = ("--no-capture", "--explicit-inbound", "127.0.0.1:0=127.0.0.1:9")


def quiet(*more: object) -> tuple[object, ...]:
    return (*EXPLICIT, "--metrics", "127.0.0.1:0", "--health", "127.0.0.1:0", *more)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--mode", "MAYBE"], "invalid choice: 'MAYBE'"),
        (["--profile", "rot13"], "there are: qbitel"),
        (["--profile", "qbitel,hybrid-l5,qbitel"], "qbitel is named twice"),
        (["--provider", "openssl"], "invalid choice: 'openssl'"),
        (["--mesh", "10.0.0.1/8"], "give a network such as 10.0.0.0/8"),
        (["--trust-domain", "UPPER"], "is no trust domain"),
        (["--inbound", "15006"], "is not HOST:PORT"),
        (["--explicit-inbound", "127.0.0.1:1"], "is not LISTEN=TARGET"),
        (["--explicit-outbound", "127.0.0.1:1=nowhere"], "is not HOST:PORT"),
        (["--explicit-inbound", "127.0.0.1:0=127.0.0.1:0"], "has port 0"),
        (["--max-connections", "0"], "is not a whole number of at least 1"),
        (["--connect-timeout", "0"], "--connect-timeout must be more than 0"),
        (["--drain-seconds", "-1"], "--drain-seconds must be 0 or more"),
        (["--workers", "two"], "is not a whole number"),
        (["--busy-poll", "auto"], "is not a whole number of microseconds up to 1000"),
        (["--busy-poll", "1001"], "is not a whole number of microseconds up to 1000"),
        (["--no-capture"], "nothing to listen on"),
        (["--interception-mode", "tproxy"], "invalid choice: 'tproxy'"),
        (["--interception-mode", "TPROXY", "--no-capture"], "of no use with --no-capture"),
        (["--inbound", "127.0.0.1:15001", "--outbound", "127.0.0.1:15001"], "is given twice"),
        (["--frobnicate"], "unrecognized arguments"),
        (["--authority", "nowhere"], "is not HOST:PORT"),
        (["--authority", "a:1", "--certs", "c"], "leave --certs and --kem-key out"),
        (["--authority", "a:1", "--kem-key", "k"], "leave --certs and --kem-key out"),
        (["--authority", "a:1", "--token", "t", "--bootstrap-token", "b"], "either --token or --bootstrap-token"),
        (["--authority", "a:1", "--instance", "a b"], "is no name for an instance"),
        (["--authority-roots", "r"], "--authority-roots goes with --authority"),
        (["--token", "t"], "--token goes with --authority"),
        (["--bootstrap-token", "b"], "--bootstrap-token goes with --authority"),
        (["--instance", "i"], "--instance goes with --authority"),
    ],
)
def test_a_wrong_flag_is_one_line(capsys, words, expected):
    assert expected in refusal(capsys, *words)


def test_a_missing_folder_is_one_line_that_says_how_to_make_it(capsys, tmp_path):
    line = refusal(capsys, *quiet("--certs", tmp_path / "nowhere"))
    assert "tls.crt does not exist" in line
    assert "qbitel ca issue" in line


def test_a_key_that_does_not_match_its_certificate_is_one_line(capsys, certs, tmp_path):
    for name, source in (("tls.crt", "a"), ("ca.crt", "a"), ("tls.key", "b")):
        shutil.copy(certs / source / name, tmp_path)
    line = refusal(capsys, *quiet("--certs", tmp_path))
    assert "does not belong to" in line
    assert "PRIVATE" not in line


def test_a_file_that_holds_no_certificate_is_one_line(capsys, certs, tmp_path):
    for name in ("tls.crt", "tls.key"):
        shutil.copy(certs / "a" / name, tmp_path)
    (tmp_path / "ca.crt").write_text("hello")
    assert "ca.crt: " in refusal(capsys, *quiet("--certs", tmp_path))


def test_a_folder_in_a_files_place_is_one_line(capsys, tmp_path):
    (tmp_path / "tls.crt").mkdir()
    assert "Is a directory" in refusal(capsys, *quiet("--certs", tmp_path))


def test_a_key_that_everybody_can_read_is_one_line_that_says_how_to_mend_it(capsys, certs, tmp_path):
    shutil.copytree(certs / "a", tmp_path, dirs_exist_ok=True)
    (tmp_path / "tls.key").chmod(0o644)
    assert f"chmod 600 {tmp_path / 'tls.key'}" in refusal(capsys, *quiet("--certs", tmp_path))


def test_a_port_in_use_is_one_line_that_says_what_to_do(capsys, certs):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = refusal(
            capsys, "--no-capture", "--certs", certs / "a", "--explicit-inbound", f"127.0.0.1:{port}=127.0.0.1:9"
        )
    assert f"port {port} on 127.0.0.1 is in use; end the program that has it" in line


def test_an_address_of_another_machine_is_one_line(capsys, certs):
    line = refusal(capsys, "--no-capture", "--certs", certs / "a", "--explicit-inbound", "192.0.2.1:0=127.0.0.1:9")
    assert "192.0.2.1 is no address of this machine" in line


def test_a_profile_that_does_not_take_the_certificates_key_is_one_line(capsys, certs, monkeypatch):
    import dataclasses

    import pqtls
    from pqtls.signatures import ECDSA_SECP256R1_SHA256

    classical = dataclasses.replace(
        pqtls.PROFILES["compat"], name="classical", signature_schemes=(ECDSA_SECP256R1_SHA256,)
    )
    monkeypatch.setitem(pqtls.PROFILES, "classical", classical)
    line = refusal(capsys, *quiet("--certs", certs / "a", "--profile", "classical"))
    assert "mldsa87" in line


def configured(*words: str):
    return proxy._config(proxy._parser().parse_args(words))


def test_the_defaults_are_the_ports_of_a_pod():
    config = configured()
    v4 = {(listener.direction, listener.bind.port) for listener in config.listeners if listener.bind.host == ANY_V4}
    assert v4 == {(Direction.OUTBOUND, 15001), (Direction.INBOUND, 15006), (Direction.INBOUND, 15008)}
    assert all(listener.target is None and listener.mesh_only for listener in config.listeners)
    assert Endpoint(ANY_V4, 15090) in config.metrics
    assert Endpoint(ANY_V4, 15021) in config.health
    assert config.trust_domains == {"cluster.local"}
    assert config.mode is MTLSMode.STRICT
    assert [profile.name for profile in config.profiles] == ["qbitel"]


def test_ipv6_listens_beside_ipv4_where_there_is_any(monkeypatch):
    for available, expected in ((True, {ANY_V4, "::"}), (False, {ANY_V4})):
        monkeypatch.setattr("proxy.sockets.ipv6_available", lambda available=available: available)
        assert {listener.bind.host for listener in configured().listeners} == expected


def test_by_tproxy_what_comes_in_is_taken_as_it_is_and_what_goes_out_is_redirected():
    listeners = configured("--interception-mode", "TPROXY").listeners
    assert {listener.transparent for listener in listeners if listener.direction is Direction.INBOUND} == {True}
    assert {listener.transparent for listener in listeners if listener.direction is Direction.OUTBOUND} == {False}
    assert not any(listener.transparent for listener in configured().listeners)


def test_explicit_listeners_have_targets_and_keep_their_order():
    config = configured(
        "--no-capture", "--explicit-outbound", "127.0.0.1:1=[::1]:2", "--explicit-outbound", "127.0.0.1:3=a.example:4",
        "--trust-domain", "a.example", "--trust-domain", "b.example", "--mesh", "10.0.0.0/8", "--mesh", "fd00::/8",
    )  # fmt: skip
    assert [(listener.bind, listener.target) for listener in config.listeners] == [
        (Endpoint("127.0.0.1", 1), Endpoint("::1", 2)),
        (Endpoint("127.0.0.1", 3), Endpoint("a.example", 4)),
    ]
    assert config.trust_domains == {"a.example", "b.example"}
    assert [str(network) for network in config.mesh] == ["10.0.0.0/8", "fd00::/8"]


def test_profiles_are_taken_in_order_of_preference_with_commas_or_repeated():
    for words in (["--profile", "hybrid-l5,qbitel"], ["--profile", "hybrid-l5", "--profile", "qbitel"]):
        assert configured(*words).profile_names == "hybrid-l5,qbitel"


def test_a_liboqs_that_is_not_there_is_one_line(capsys, certs, monkeypatch):
    monkeypatch.setattr("ctypes.util.find_library", lambda _name: None)
    monkeypatch.setenv("OQS_INSTALL_PATH", "/nonexistent")
    line = refusal(capsys, *quiet("--certs", certs / "a", "--provider", "liboqs"))
    assert "the provider liboqs cannot be used" in line


def test_a_key_log_without_its_second_switch_is_one_line_and_no_file(capsys, certs, tmp_path, monkeypatch):
    monkeypatch.delenv("QBITEL_DEVELOPMENT", raising=False)
    line = refusal(capsys, *quiet("--certs", certs / "a", "--key-log", tmp_path / "keys"))
    assert "only with QBITEL_DEVELOPMENT=1" in line
    assert not (tmp_path / "keys").exists()


def test_an_empty_revocation_list_is_one_line(capsys, certs, tmp_path):
    shutil.copytree(certs / "a", tmp_path, dirs_exist_ok=True)
    (tmp_path / "crl.pem").touch()
    assert "crl.pem is empty" in refusal(capsys, *quiet("--certs", tmp_path))


def test_an_authority_needs_nothing_but_its_address(monkeypatch):
    monkeypatch.setenv("POD_UID", "7f1c-uid")
    config = configured("--authority", "qbitel-certmgr.qbitel-system.svc:15012")
    assert config.files is None
    enrolment = config.enrolment
    assert enrolment.authority == Endpoint("qbitel-certmgr.qbitel-system.svc", 15012)
    assert str(enrolment.roots.roots) == "/etc/qbitel/roots/ca.crt"
    assert str(enrolment.token) == "/var/run/secrets/qbitel/token"
    assert (enrolment.bootstrap_token, enrolment.instance) == (None, "7f1c-uid")
    monkeypatch.delenv("POD_UID")
    assert configured("--authority", "a:1").enrolment.instance == socket.gethostname()


def test_what_an_authority_is_given_replaces_the_defaults():
    words = ("--authority", "a:1", "--authority-roots", "r", "--bootstrap-token", "b", "--instance", "i")
    enrolment = configured(*words).enrolment
    assert (str(enrolment.roots.roots), enrolment.token, str(enrolment.bootstrap_token)) == ("r/ca.crt", None, "b")
    assert enrolment.instance == "i"


def test_a_sealed_key_is_opened_with_the_key_that_was_named():
    files = configured("--certs", "c", "--kem-key", "k").files
    assert str(files.kem_key) == "k"
    assert files.open_sealed is not None
    assert str(configured("--certs", "c").files.kem_key) == "c/kem.key"


def test_the_limits_of_tunnels_are_what_their_flags_say():
    limits = configured("--tunnel-idle-timeout", "1", "--tunnel-silence", "2", "--tunnel-max-age", "3").limits
    assert (limits.tunnel_idle_timeout, limits.tunnel_silence, limits.tunnel_max_age) == (1, 2, 3)


def test_the_peers_document_is_named_beside_the_short_form():
    config = configured("--peers", "peers.yaml", "--mesh", "10.0.0.0/8")
    assert str(config.peers_file) == "peers.yaml"
    assert [str(network) for network in config.mesh] == ["10.0.0.0/8"]


def test_looking_for_events_before_sleeping_is_given_in_microseconds_and_by_default_left_to_the_machine():
    assert configured("--busy-poll", "150").busy_poll == 150e-6
    assert configured("--busy-poll", "0").busy_poll == 0
    assert configured().busy_poll is None
