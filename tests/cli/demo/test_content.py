from __future__ import annotations

import hashlib

from cli.demo.content import BLOCK_SIZE, Markers, file_blocks, lines_in_file

MARKERS = Markers("token-1")


def whole(markers: Markers, size: int) -> bytes:
    return b"".join(bytes(block) for block in file_blocks(markers, size))


def test_the_same_token_gives_the_same_file_and_another_token_another() -> None:
    first, again, other = whole(MARKERS, 5000), whole(MARKERS, 5000), whole(Markers("token-2"), 5000)
    assert first == again != other


def test_the_file_has_exactly_the_size_asked_for() -> None:
    for size in (1, 2048, BLOCK_SIZE, BLOCK_SIZE + 1, 3 * BLOCK_SIZE - 7):
        assert len(whole(MARKERS, size)) == size


def test_a_whole_marker_stands_in_every_4_kib() -> None:
    content = whole(MARKERS, BLOCK_SIZE)
    assert all(MARKERS.file in content[start : start + 4096] for start in range(0, BLOCK_SIZE - 4096, 1000))


def test_the_number_of_marker_lines_is_exact_for_whole_lines() -> None:
    assert whole(MARKERS, 2 * BLOCK_SIZE).count(MARKERS.file) == lines_in_file(2 * BLOCK_SIZE)


def test_two_blocks_in_the_wrong_order_change_the_checksum() -> None:
    content = whole(MARKERS, 2 * BLOCK_SIZE)
    swapped = content[BLOCK_SIZE:] + content[:BLOCK_SIZE]
    assert hashlib.sha256(content).digest() != hashlib.sha256(swapped).digest()


def test_all_markers_start_with_the_token() -> None:
    patterns = MARKERS.patterns()
    assert set(patterns) == {"request", "response", "file"}
    assert all(pattern.startswith(b"token-1-") for pattern in patterns.values())
