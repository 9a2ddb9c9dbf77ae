"""Reading what a user wrote: right text has one meaning, any other text is a UserError that names the flag."""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Callable, Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from init import config
from init.config import IdRange, InterceptionConfig, PortRange, PortsOfUsers
from mesh.errors import UserError

FLAG = "--some-flag"
PARSERS: list[Callable[[str, str], object]] = [
    config.parse_ports,
    config.parse_ports_or_all,
    config.parse_port,
    config.parse_networks,
    config.parse_networks_or_all,
    config.parse_interfaces,
    config.parse_interfaces_or_all,
    config.parse_id,
    config.parse_ids,
    config.parse_ids_or_all,
    config.parse_ports_of_users,
]
# Text made of what such lists are made of finds more than text of any characters, so both are tried.
near_misses = st.text(alphabet="0123456789:-,./*+%abcdefx; \t\n²٣", max_size=40)
any_text = st.text(max_size=200) | near_misses


@example("\x08" * 60, config.parse_ports)  # each character is four in its escaped form
@given(any_text, st.sampled_from(PARSERS))
def test_any_text_is_read_or_refused_in_one_line_that_names_the_flag(
    text: str, parser: Callable[[str, str], object]
) -> None:
    try:
        parser(FLAG, text)
    except UserError as error:
        message = str(error)
        assert message.startswith(f"{FLAG}: ")
        assert message.isprintable()
        assert len(message) < 300


ports = st.integers(1, 65535)
ranges = st.tuples(ports, ports).map(lambda pair: PortRange(min(pair), max(pair)))


def _numbers(found: Iterable[PortRange | IdRange]) -> set[int]:
    return {number for one in found for number in range(one.first, one.last + 1)}


@given(st.lists(st.tuples(ranges, st.sampled_from(":-"), st.sampled_from(["", " "])), max_size=20))
def test_a_list_of_ports_means_the_same_in_every_order_and_spelling(
    entries: list[tuple[PortRange, str, str]],
) -> None:
    text = ",".join(f"{space}{found.first}{separator}{found.last}{space}" for found, separator, space in entries)
    read = config.parse_ports(FLAG, text)
    assert _numbers(read) == _numbers(found for found, _, _ in entries)
    # Sorted, and at least one number between two of them: there is one such list.
    assert all(one.last + 1 < other.first for one, other in itertools.pairwise(read))
    assert config.parse_ports(FLAG, ",".join(map(str, reversed(read)))) == read


small = st.integers(0, 12)
small_ids = st.tuples(small, small).map(lambda pair: IdRange(min(pair), max(pair)))


@given(st.lists(small_ids, max_size=8))
def test_a_list_of_ids_means_the_same_in_every_order_and_spelling(entries: list[IdRange]) -> None:
    read = config.parse_ids(FLAG, ",".join(map(str, entries)))
    assert _numbers(read) == _numbers(entries)
    assert all(one.last + 1 < other.first for one, other in itertools.pairwise(read))


@given(st.lists(st.tuples(small_ids, st.lists(small.map(lambda port: port + 1), min_size=1, max_size=4)), max_size=6))
def test_ports_of_users_mean_the_same_in_every_order_and_spelling(entries: list[tuple[IdRange, list[int]]]) -> None:
    def text(of: Iterable[tuple[IdRange, Iterable[object]]]) -> str:
        return ";".join(f"{uids}:{','.join(map(str, ports))}" for uids, ports in of)

    read = config.parse_ports_of_users(FLAG, text(entries))
    assert {(uid, port) for one in read for uid in _numbers([one.uids]) for port in _numbers(one.ports)} == {
        (uid, port) for uids, ports in entries for uid in _numbers([uids]) for port in ports
    }
    by_the_one = [(IdRange(uid, uid), [port]) for uids, ports in entries for uid in _numbers([uids]) for port in ports]
    assert config.parse_ports_of_users(FLAG, text(reversed(by_the_one))) == read


addresses = st.ip_addresses()
networks = addresses.flatmap(
    lambda address: st.integers(0, address.max_prefixlen).map(
        lambda length: ipaddress.ip_network((address, length), strict=False)
    )
)


@given(st.lists(networks, max_size=10))
def test_a_list_of_networks_is_read_back_as_written(found: list[config.Network]) -> None:
    read = config.parse_networks(FLAG, ",".join(map(str, found)))
    assert set(read) == set(found)
    assert len(read) == len(set(found))


@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_list_is_nothing(text: str) -> None:
    assert config.parse_ports(FLAG, text) == ()
    assert config.parse_ports_or_all(FLAG, text) == ()
    assert config.parse_networks_or_all(FLAG, text) == ()
    assert config.parse_interfaces(FLAG, text) == ()
    assert config.parse_ids(FLAG, text) == ()
    assert config.parse_ports_of_users(FLAG, text) == ()


def test_a_star_alone_is_everything() -> None:
    assert config.parse_ports_or_all(FLAG, "*") is None
    assert config.parse_networks_or_all(FLAG, " * ") is None
    assert config.parse_ids_or_all(FLAG, "*") is None
    assert config.parse_interfaces_or_all(FLAG, "*") is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("99999", "'99999' is not a port"),
        ("0", "'0' is not a port"),
        ("http", "'http' is not a port"),
        ("80,,90", "has an empty entry"),
        ("80,", "has an empty entry"),
        ("1-2-3", "'1-2-3' is not a port"),
        ("90-80", "starts above its end; write 80-90"),
        ("80,*", "cannot be one entry"),
        ("٣", "is not a port"),
        ("1" * 5000, "is not a port"),
    ],
)
def test_wrong_ports_are_refused_with_the_entry_that_is_wrong(text: str, words: str) -> None:
    with pytest.raises(UserError) as refusal:
        config.parse_ports(FLAG, text)
    assert words in str(refusal.value)


def test_host_bits_of_a_network_are_cleared_as_the_packet_filter_does() -> None:
    assert config.parse_networks(FLAG, "10.1.2.3/8,fd00::1/8,192.0.2.1") == (
        ipaddress.ip_network("10.0.0.0/8"),
        ipaddress.ip_network("192.0.2.1/32"),
        ipaddress.ip_network("fd00::/8"),
    )


@pytest.mark.parametrize("text", ["10.0.0.0/33", "fd00::/129", "example.org", "fe80::1%eth0", "10.0.0", "10.0.0.0/8/8"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="is not a network"):
        config.parse_networks(FLAG, text)


@pytest.mark.parametrize("text", ["lo", "l+", "+", "eth0;reboot", "an-interface-too-long", "eth 0", "! eth0", "eth0/1"])
def test_interfaces_that_cannot_be_excluded_are_refused(text: str) -> None:
    with pytest.raises(UserError, match=FLAG):
        config.parse_interfaces(FLAG, text)


def test_interfaces_may_end_in_a_plus() -> None:
    assert config.parse_interfaces(FLAG, "veth+,eth1, eth1") == ("eth1", "veth+")


def test_ids_are_numbers_and_ranges_root_included() -> None:
    assert config.parse_ids(FLAG, "1000-1999,0, 0") == (IdRange(0, 0), IdRange(1000, 1999))
    assert list(map(str, config.parse_ids(FLAG, "0,1000-1999"))) == ["0", "1000-1999"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("root", "'root' is not a numeric id"),
        ("5-", "'5-' is not a numeric id"),
        ("-5", "'-5' is not a numeric id"),
        ("9-5", "starts above its end; write 5-9"),
        ("4294967295", "is not a numeric id"),
        ("1,*", "cannot be one entry"),
    ],
)
def test_wrong_ids_are_refused_with_the_entry_that_is_wrong(text: str, words: str) -> None:
    with pytest.raises(UserError) as refusal:
        config.parse_ids(FLAG, text)
    assert words in str(refusal.value)


def test_ports_of_users_are_pairs_joined_by_semicolons_in_any_order() -> None:
    read = config.parse_ports_of_users(FLAG, "2000-2010:9092; 1000:465-587,25")
    assert read == (
        PortsOfUsers(IdRange(1000, 1000), (PortRange(25, 25), PortRange(465, 587))),
        PortsOfUsers(IdRange(2000, 2010), (PortRange(9092, 9092),)),
    )
    assert config.parse_ports_of_users(FLAG, "1000:25,465:587;2000-2010:9092") == read


@pytest.mark.parametrize("text", ["1000", "1000:", ":25", "1000:25;", "1000,1001:25", "1000:http", "*:25", "1000:*"])
def test_what_is_no_pair_of_users_and_ports_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=FLAG):
        config.parse_ports_of_users(FLAG, text)


def test_root_cannot_be_the_sidecars_user() -> None:
    with pytest.raises(UserError, match="would exempt root"):
        config.parse_id("--proxy-uid", "0")
    assert config.parse_id("--proxy-uid", "4294967294") == 2**32 - 2
    with pytest.raises(UserError, match="numeric id"):
        config.parse_id("--proxy-uid", "4294967295")


def test_the_two_ports_of_the_sidecar_differ() -> None:
    with pytest.raises(UserError, match="both 15006"):
        InterceptionConfig(outbound_port=15006)


@pytest.mark.parametrize("port", [15001, 15006])
def test_questions_to_name_servers_do_not_go_where_connections_go(port: int) -> None:
    with pytest.raises(UserError, match=f"--dns-port are both {port}"):
        InterceptionConfig(dns_port=port)


@pytest.mark.parametrize("which", ["inbound", "outbound", "dns"])
@pytest.mark.parametrize(
    ("port", "words"),
    [
        (15000, "the sidecar's admin port"),
        (15002, "the port that the sidecar's self-test dials"),
        (15008, "the tunnel port, which is never captured"),
        (15020, "the port of Istio's merged metrics, which is never captured"),
        (15021, "the sidecar's health port, which is never captured"),
        (15090, "the sidecar's metrics port, which is never captured"),
    ],
)
def test_a_port_of_the_sidecars_own_cannot_be_a_capture_port(which: str, port: int, words: str) -> None:
    with pytest.raises(UserError, match=f"--{which}-port: {port} is {words}; choose another one"):
        InterceptionConfig(**{f"{which}_port": port})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (
            InterceptionConfig(include_inbound_ports=config.parse_ports("", "80,15008,15020-15021")),
            "--include-inbound-ports: 15008, 15020:15021 has no effect",
        ),
        (
            InterceptionConfig(include_outbound_ports=config.parse_ports("", "443")),
            "to capture these ports alone, add --include-outbound-cidrs ''",
        ),
        (
            InterceptionConfig(
                include_outbound_ports=None, include_outbound_cidrs=config.parse_networks("", "10.0.0.0/8")
            ),
            "--include-outbound-cidrs has no effect",
        ),
    ],
)
def test_an_option_that_changes_nothing_is_worth_a_line(wanted: InterceptionConfig, words: str) -> None:
    (line,) = config.without_effect(wanted)
    assert words in line


@pytest.mark.parametrize(
    "wanted",
    [
        InterceptionConfig(),
        InterceptionConfig(include_inbound_ports=config.parse_ports("", "15000-15100")),
        InterceptionConfig(exclude_inbound_ports=config.parse_ports("", "15090")),
        InterceptionConfig(include_outbound_ports=config.parse_ports("", "443"), include_outbound_cidrs=()),
        InterceptionConfig(include_outbound_ports=None, include_outbound_cidrs=()),
    ],
)
def test_what_is_meant_as_it_stands_is_worth_no_line(wanted: InterceptionConfig) -> None:
    assert config.without_effect(wanted) == ()


@pytest.mark.parametrize("what", ["inbound-sources", "interfaces", "uids", "gids"])
def test_an_inclusion_of_nothing_is_refused(what: str) -> None:
    with pytest.raises(UserError, match=f"--include-{what}: an empty list would capture nothing"):
        InterceptionConfig(**{f"include_{what.replace('-', '_')}": ()})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("parser", "text"),
    [
        (config.parse_ports, "80,8000-8100,9000:9010"),
        (config.parse_networks, "10.0.0.0/8,fd00::/8,::ffff:192.0.2.1"),
        (config.parse_interfaces, "eth0,veth+"),
        (config.parse_ids, "0,1000-1999"),
        (config.parse_ports_of_users, "1000:25,465-587;2000-2010:9092"),
    ],
)
def test_each_cut_and_each_flipped_bit_of_a_list_is_read_or_refused(
    parser: Callable[[str, str], object], text: str
) -> None:
    for place in range(len(text)):
        for bit in range(8):
            flipped = text[:place] + chr(ord(text[place]) ^ (1 << bit)) + text[place + 1 :]
            for broken in (flipped, flipped[:place]):
                try:
                    assert isinstance(parser(FLAG, broken), tuple)
                except UserError as error:
                    assert str(error).startswith(FLAG)
                    assert str(error).isprintable()
