"""What every handshake state demands of a message."""

from __future__ import annotations

import pytest

from pqtls.errors import Alert, ProtocolViolation
from pqtls.framing import HandshakeMessage, HandshakeType
from pqtls.states import expect


def test_the_body_of_the_wanted_message_is_returned() -> None:
    assert expect(HandshakeMessage(20, b"mac", b""), HandshakeType.FINISHED) == b"mac"


@pytest.mark.parametrize("message_type", [*(kind for kind in HandshakeType if kind != 20), 0, 3, 99, 254])
def test_any_other_message_is_an_unexpected_message(message_type: int) -> None:
    with pytest.raises(ProtocolViolation, match=" came where finished was expected") as caught:
        expect(HandshakeMessage(message_type, b"", b""), HandshakeType.FINISHED)
    assert caught.value.alert is Alert.UNEXPECTED_MESSAGE
