"""The transcript hash as a value."""

from __future__ import annotations

import hashlib

from pqtls.transcript import Transcript


def test_the_digest_is_the_hash_of_all_messages_behind_one_another() -> None:
    transcript = Transcript("sha384", b"one", b"two") + b"three"
    assert transcript.digest() == hashlib.sha384(b"onetwothree").digest()


def test_adding_a_message_leaves_the_shorter_transcript_as_it_was() -> None:
    short = Transcript("sha256", b"one")
    before = short.digest()
    assert (short + b"two").digest() != before
    assert short.digest() == before


def test_a_retry_replaces_the_first_hello_by_its_hash_in_a_message_of_type_254() -> None:
    replaced = Transcript("sha384", Transcript.message_hash("sha384", b"hello"), b"retry")
    digest = hashlib.sha384(b"hello").digest()
    assert replaced.digest() == hashlib.sha384(b"\xfe\x00\x00\x30" + digest + b"retry").digest()
