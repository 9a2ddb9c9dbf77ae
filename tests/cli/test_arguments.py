"""Arguments as every subcommand reads them."""

from __future__ import annotations

import argparse

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cli.arguments import EXIT_USAGE, Address, Parser, address, positive_int, seconds


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:9000", "127.0.0.1", 9000),
        ("[::1]:9000", "::1", 9000),
        ("example.org:443", "example.org", 443),
        ("localhost:0", "localhost", 0),
        ("localhost:65535", "localhost", 65535),
    ],
)
def test_an_address_is_read_and_written_in_the_same_form(text: str, host: str, port: int) -> None:
    assert address(text) == Address(host, port)
    assert str(address(text)) == text


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "is not HOST:PORT"),
        ("localhost", "is not HOST:PORT"),
        (":80", "is not HOST:PORT"),
        ("localhost:", "is not HOST:PORT"),
        ("localhost:http", "is not HOST:PORT"),
        ("localhost:-1", "is not HOST:PORT"),
        ("localhost:65536", "is not HOST:PORT"),
        ("localhost:٣", "is not HOST:PORT"),
        ("::1:80", "stands in brackets"),
        ("[::1]", "is not HOST:PORT"),
        ("[localhost]:80", "is not an IPv6 address"),
        ("[127.0.0.1]:80", "is not an IPv6 address"),
        ("[]:80", "is not an IPv6 address"),
    ],
)
def test_what_is_no_address_is_refused_with_an_example_or_the_reason(text: str, fault: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=fault):
        address(text)


@given(st.text())
@example("[\n]:1")
@example("a:" + "9" * 5000)
def test_any_text_is_an_address_or_refused_in_one_line(text: str) -> None:
    try:
        parsed = address(text)
    except argparse.ArgumentTypeError as error:
        assert str(error).isprintable()
    except ValueError:
        # A number of thousands of digits: argparse makes its own one line of it.
        assert len(text) > 4300
    else:
        assert 0 <= parsed.port <= 65535
        assert parsed.host
        assert address(str(parsed)) == parsed


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("007", 7), ("65536", 65536)])
def test_a_positive_number_is_read(text: str, number: int) -> None:
    assert positive_int(text) == number


@pytest.mark.parametrize("text", ["", "0", "-1", "+1", "1.5", "1e3", "one", " 1", "²", "٣"])
def test_what_is_no_positive_number_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="not a whole number of at least 1"):
        positive_int(text)


def test_a_parser_s_error_is_one_line_that_points_to_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    parser = Parser(prog="qbitel thing")
    parser.add_argument("--listen", type=address)

    with pytest.raises(SystemExit) as end:
        parser.parse_args(["--listen", "nowhere"])

    assert end.value.code == EXIT_USAGE == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "qbitel thing: argument --listen: 'nowhere' is not HOST:PORT, for example 127.0.0.1:9000 or "
        "[::1]:9000 (see qbitel thing --help)\n"
    )


def test_a_subcommand_s_parser_reports_in_the_same_way(capsys: pytest.CaptureFixture[str]) -> None:
    parser = Parser(prog="qbitel thing")
    parser.add_subparsers().add_parser("make").add_argument("name")

    with pytest.raises(SystemExit) as end:
        parser.parse_args(["make"])

    assert end.value.code == EXIT_USAGE
    assert capsys.readouterr().err == (
        "qbitel thing make: the following arguments are required: name (see qbitel thing make --help)\n"
    )


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "soon", "3601", ""])
def test_a_time_to_wait_is_a_number_of_seconds_up_to_an_hour(text: str) -> None:
    assert seconds("0") == 0.0
    assert seconds("2.5") == 2.5
    with pytest.raises(argparse.ArgumentTypeError, match="is not a number of seconds from 0 to 3600"):
        seconds(text)
