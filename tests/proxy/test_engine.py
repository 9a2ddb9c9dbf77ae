"""The lent buffers have room for the worst that an engine may do with them."""

from __future__ import annotations

from proxy.engine import READ_SIZE, Engine, Scratch


def test_what_is_sealed_from_a_full_read_fits_and_opens_again(tls_pair):
    engines: tuple[Engine, Engine] = tls_pair()
    client, server = engines
    scratch, other = Scratch(), Scratch()
    scratch.read[:READ_SIZE] = bytes(range(256)) * (READ_SIZE // 256)
    produced = client.seal_into(scratch.read, READ_SIZE, scratch.write)
    assert READ_SIZE < produced <= len(scratch.write)
    opened = left = 0
    for start in range(0, produced, READ_SIZE):
        piece = scratch.write[start : min(start + READ_SIZE, produced)]
        carried = left
        other.read[carried : carried + len(piece)] = piece
        consumed, length = server.open_into(other.read[: carried + len(piece)], other.write)
        opened += length
        left = carried + len(piece) - consumed
        other.read[:left] = bytes(other.read[consumed : consumed + left])
    assert opened == READ_SIZE
    assert left == 0


def test_records_of_the_smallest_size_that_a_peer_may_ask_for_fit():
    records = -(-READ_SIZE // 63)
    assert len(Scratch().write) >= READ_SIZE + 22 * records
