"""Argument parsing as every subcommand shares it: one line per error, exit code 2."""

from __future__ import annotations

import argparse
import ipaddress
import sys
from dataclasses import dataclass
from typing import NoReturn

EXIT_USAGE = 2
_MOST_SECONDS = 3600.0


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line on stderr, without the usage text in front of it."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message} (see {self.prog} --help)", file=sys.stderr)
        sys.exit(EXIT_USAGE)


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port as a user writes them: `127.0.0.1:9000`, `[::1]:9000`, `example.org:443`."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def address(text: str) -> Address:
    """Parse HOST:PORT for argparse; an IPv6 address stands in brackets. Port 0 is "any free port"."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, for example 127.0.0.1:9000 or [::1]:9000")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r}: {host!r} in brackets is not an IPv6 address") from None
    elif not host or ":" in host:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT; an IPv6 address stands in brackets: [::1]:9000")
    return Address(host, int(port))


def positive_int(text: str) -> int:
    """Parse a whole number of at least 1 for argparse."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def busy_poll(text: str) -> float:
    """Parse microseconds to look for events for argparse, into seconds: at most a thousand, which nobody would sleep
    through anyway.
    """
    if not text.isascii() or not text.isdigit() or int(text) > 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of microseconds up to 1000")
    return int(text) / 1e6


def seconds(text: str) -> float:
    """Parse a time to wait for argparse, in seconds: at most an hour, which is what a supervisor waits at the most."""
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found <= _MOST_SECONDS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to {_MOST_SECONDS:g}")
    return found
