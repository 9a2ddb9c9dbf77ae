"""Reasons cross a tunnel: what one side means, the other says."""

from __future__ import annotations

import pytest

from proxy.relay import End
from proxy.tunnels.ends import StreamReset, code_of, end_of
from proxy.tunnels.frames import ResetCode


@pytest.mark.parametrize("end", [End.IDLE, End.DRAINED, End.REVOKED, End.CONNECT_TIMEOUT])
def test_a_reason_of_ours_has_a_code_of_its_own(end):
    assert code_of(end) is not ResetCode.INTERNAL_ERROR
    assert end_of(code_of(end)) is End.REFUSED


def test_what_has_no_code_is_an_internal_error_there():
    assert code_of(End.INTERNAL_ERROR) is ResetCode.INTERNAL_ERROR


def test_a_reset_of_the_other_application_is_no_refusal():
    assert end_of(ResetCode.RESET_BY_APPLICATION) is End.RESET_BY_PEER
    assert {end_of(code) for code in ResetCode} == {End.RESET_BY_PEER, End.REFUSED}
    assert str(StreamReset(ResetCode.DENIED)) == "denied"
