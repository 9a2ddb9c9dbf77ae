from __future__ import annotations

from cli.demo.errors import PartFailedError, StoppedError


def test_a_failed_part_keeps_its_last_lines() -> None:
    error = PartFailedError("the sidecar ended", ["one", "two"])
    assert str(error) == "the sidecar ended"
    assert error.lines == ("one", "two")


def test_a_stop_knows_its_signal() -> None:
    assert StoppedError(15).signal_number == 15
