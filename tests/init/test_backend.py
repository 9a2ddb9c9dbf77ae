"""Which programs and which back end: real programs, most of them small scripts that behave as some machine's do."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from init import backend
from init.backend import FilterRefused, Kind, PacketFilter, choose_kind, find_filters, require_permission
from init.config import BackendChoice
from init.rules import Family
from init.state import State, parse_save
from mesh.errors import UserError

if TYPE_CHECKING:
    from tests.init.conftest import Namespace

NOTHING = parse_save("")
FOREIGN = parse_save("*nat\n-A OUTPUT -j ACCEPT\nCOMMIT\n")
OURS = parse_save("*nat\n:QBITEL_INBOUND - [0:0]\nCOMMIT\n")


def _install(folder: Path, name: str, script: str = "exit 0") -> None:
    for suffix in ("", "-save", "-restore"):
        program = folder / f"{name}{suffix}"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)


def _filters(folder: Path, **scripts: str) -> dict[Kind, PacketFilter]:
    for kind, script in scripts.items():
        _install(folder, f"iptables-{kind}", script)
    return {filter_.kind: filter_ for filter_ in find_filters(str(folder))}


def test_both_back_ends_and_families_are_found_nft_first(tmp_path: Path) -> None:
    for name in ("ip6tables-legacy", "iptables-legacy", "ip6tables-nft", "iptables-nft"):
        _install(tmp_path, name)
    found = find_filters(str(tmp_path))
    assert [(filter_.kind, filter_.family) for filter_ in found] == [
        (Kind.NFT, Family.V4),
        (Kind.NFT, Family.V6),
        (Kind.LEGACY, Family.V4),
        (Kind.LEGACY, Family.V6),
    ]
    assert found[1].restorer == str(tmp_path / "ip6tables-nft-restore")


@pytest.mark.parametrize(
    ("version", "kind"),
    [
        ("iptables v1.8.9 (nf_tables)", Kind.NFT),
        ("iptables v1.8.9 (legacy)", Kind.LEGACY),
        ("iptables v1.6.1", Kind.LEGACY),
    ],
)
def test_programs_without_a_suffix_are_asked_what_they_are(tmp_path: Path, version: str, kind: Kind) -> None:
    _install(tmp_path, "iptables", f"echo '{version}'")
    (found,) = find_filters(str(tmp_path))
    assert found.kind is kind


def test_half_an_installation_is_none(tmp_path: Path) -> None:
    _install(tmp_path, "iptables-nft")
    (tmp_path / "iptables-nft-restore").unlink()
    assert find_filters(str(tmp_path)) == ()


@pytest.mark.parametrize(
    ("nft", "legacy", "chosen"),
    [
        (NOTHING, NOTHING, Kind.NFT),
        (FOREIGN, NOTHING, Kind.NFT),
        (NOTHING, FOREIGN, Kind.LEGACY),
        (FOREIGN, FOREIGN, Kind.NFT),
        (FOREIGN, OURS, Kind.LEGACY),
        (OURS, FOREIGN, Kind.NFT),
        (OURS, OURS, Kind.NFT),
    ],
)
def test_the_back_end_in_use_is_chosen(tmp_path: Path, nft: State, legacy: State, chosen: Kind) -> None:
    filters = _filters(tmp_path, nft="exit 0", legacy="exit 0")
    states = {filters[Kind.NFT]: nft, filters[Kind.LEGACY]: legacy}
    assert choose_kind(BackendChoice.AUTO, [*filters.values()], states) is chosen


def test_what_the_kernel_lacks_is_passed_over(tmp_path: Path) -> None:
    filters = _filters(tmp_path, nft="echo 'Protocol not supported' >&2; exit 1", legacy="exit 0")
    assert choose_kind(BackendChoice.AUTO, [*filters.values()], {}) is Kind.LEGACY


def test_a_kernel_without_any_packet_filter_is_reported_with_its_words(tmp_path: Path) -> None:
    filters = _filters(tmp_path, nft="echo 'not supported' >&2; exit 1", legacy="echo 'insmod?' >&2; exit 3")
    with pytest.raises(UserError) as refusal:
        choose_kind(BackendChoice.AUTO, [*filters.values()], {})
    assert "iptables-nft: not supported; iptables-legacy: insmod?" in str(refusal.value)


def test_the_back_end_asked_for_is_taken_whatever_is_in_use(tmp_path: Path) -> None:
    filters = _filters(tmp_path, nft="exit 0", legacy="exit 0")
    states = {filters[Kind.NFT]: OURS, filters[Kind.LEGACY]: NOTHING}
    assert choose_kind(BackendChoice.LEGACY, [*filters.values()], states) is Kind.LEGACY


@pytest.mark.parametrize(
    ("choice", "name"), [(BackendChoice.AUTO, "iptables"), (BackendChoice.LEGACY, "iptables-legacy")]
)
def test_missing_programs_are_reported_with_what_to_install(tmp_path: Path, choice: BackendChoice, name: str) -> None:
    filters = _filters(tmp_path, **({"nft": "exit 0"} if choice is BackendChoice.LEGACY else {}))
    with pytest.raises(UserError, match=f"^{name} is not installed: install the iptables package"):
        choose_kind(choice, [*filters.values()], {})


def test_an_error_is_one_line_with_the_programs_words(tmp_path: Path) -> None:
    script = "printf '# Warning: legacy tables present\\nline 4: CHAIN_ADD failed\\n\\n (File exists)\\n' >&2; exit 4"
    filters = _filters(tmp_path, nft=script)
    with pytest.raises(FilterRefused) as refusal:
        filters[Kind.NFT].restore("*nat\nCOMMIT\n")
    assert str(refusal.value) == "iptables-nft-restore: line 4: CHAIN_ADD failed; (File exists)"


def test_an_error_without_words_has_its_exit_code(tmp_path: Path) -> None:
    filters = _filters(tmp_path, nft="exit 7")
    assert str(filters[Kind.NFT].refusal()) == "iptables-nft: exit code 7 without a word"


def test_a_refused_permission_says_what_to_grant(tmp_path: Path) -> None:
    filters = _filters(tmp_path, nft="echo 'Permission denied (you must be root)' >&2; exit 4")
    with pytest.raises(FilterRefused, match="NET_ADMIN and NET_RAW"):
        filters[Kind.NFT].read()


def test_a_program_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "RUN_LIMIT", 0.1)
    filters = _filters(tmp_path, nft="exec sleep 60")
    with pytest.raises(FilterRefused, match="did not end within"):
        filters[Kind.NFT].read()


def test_a_program_that_cannot_be_run_is_a_refusal(tmp_path: Path) -> None:
    filters = _filters(tmp_path, nft="exit 0")
    (tmp_path / "iptables-nft-save").write_text("#!/nonexistent\n")
    with pytest.raises(FilterRefused, match="cannot be run"):
        filters[Kind.NFT].read()


def test_restore_waits_for_the_lock_and_leaves_foreign_rules(tmp_path: Path) -> None:
    filters = _filters(tmp_path, nft=f'echo "$@" > {tmp_path}/arguments; cat > {tmp_path}/text')
    filters[Kind.NFT].restore("*nat\nCOMMIT\n")
    assert (tmp_path / "arguments").read_text() == "-w 10 --noflush\n"
    assert (tmp_path / "text").read_text() == "*nat\nCOMMIT\n"


def test_programs_speak_english_whatever_the_locale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("SECRET", "of the caller")
    filters = _filters(tmp_path, nft="env > " + str(tmp_path / "environment"))
    filters[Kind.NFT].read()
    lines = (tmp_path / "environment").read_text().splitlines()
    assert "LC_ALL=C" in lines
    assert not any(line.startswith("SECRET") for line in lines)


@pytest.mark.parametrize(("effective", "may"), [("000001ffffffffff", True), ("0000000000001000", True), ("0", False)])
def test_the_capability_is_what_counts(tmp_path: Path, effective: str, may: bool) -> None:
    status = tmp_path / "status"
    status.write_text(f"Name:\tqbitel\nCapPrm:\tffff\nCapEff:\t{effective}\n")
    if may:
        require_permission(status)
    else:
        with pytest.raises(UserError, match="NET_ADMIN"):
            require_permission(status)


@pytest.mark.root
def test_legacy_works_on_a_read_only_root(namespace: Namespace, backend: str) -> None:
    if backend != "legacy":
        pytest.skip("only iptables-legacy has a lock file")
    script = (
        'mount -t tmpfs -o ro none /run && exec "$0" -c \'from cli.main import main; raise SystemExit(main())\' "$@"'
    )
    arguments = ("init", "--backend", "legacy", "--ipv6", "off")
    namespace.run("unshare", "--mount", "sh", "-c", script, sys.executable, *arguments)
    assert "QBITEL_INBOUND" in namespace.rules("legacy")
