from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from cli.demo.errors import PartFailedError
from cli.demo.loopback import LoopbackStage, free_ports
from cli.demo.stage import Endpoint


def test_an_endpoint_is_written_as_people_write_it() -> None:
    assert str(Endpoint("10.250.0.2", 80)) == "10.250.0.2:80"
    assert Endpoint("10.250.0.2", 80).pair == ("10.250.0.2", 80)


def test_a_client_reaches_the_sample(tmp_path: Path) -> None:
    with ExitStack() as stack:
        stage = LoopbackStage(stack, tmp_path, free_ports(1)[0])
        stage.start_sample("token")
        fetched = stage.run_client("fetch", stage.direct(), 10, bytes=1000)
        assert fetched["bytes"] == 1000


def test_what_a_stage_started_ends_with_it(tmp_path: Path) -> None:
    with ExitStack() as stack:
        stage = LoopbackStage(stack, tmp_path, free_ports(1)[0])
        server = stage.start_sample("token")
    assert server.exit_code is not None
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(stage.direct().pair, 1)


def test_a_client_that_fails_is_a_failed_part(tmp_path: Path) -> None:
    with ExitStack() as stack:
        stage = LoopbackStage(stack, tmp_path, free_ports(1)[0])
        with pytest.raises(PartFailedError, match="the client") as failure:
            stage.run_client("fetch", stage.direct(), 10, bytes=1)
        assert "refused" in failure.value.lines[-1]
