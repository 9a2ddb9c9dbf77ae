"""Buffers are lent and come back."""

from __future__ import annotations

from proxy.engine import READ_SIZE, Scratch
from proxy.tunnels.buffers import OUT_SIZE, TunnelBuffers


def test_a_buffer_that_was_given_back_is_lent_again_and_has_a_byte_to_spare():
    buffers = TunnelBuffers(Scratch())
    first = buffers.take()
    assert len(first) == OUT_SIZE + 1 == READ_SIZE + 1
    assert buffers.take() is not first
    buffers.give_back(first)
    assert buffers.take() is first


def test_only_a_few_are_kept():
    buffers = TunnelBuffers(Scratch())
    lent = [buffers.take() for _ in range(60)]
    for one in lent:
        buffers.give_back(one)
    assert len({id(buffers.take()) for _ in range(60)} & {id(one) for one in lent}) < 30


def test_what_was_collected_fits_behind_a_piece_of_a_frame_and_sealed_in_the_smallest_records():
    scratch = Scratch()
    buffers = TunnelBuffers(scratch)
    assert len(buffers.plain) > len(buffers.read)
    records = -(-OUT_SIZE // 63)
    assert len(buffers.sealed) >= OUT_SIZE + records * 22
