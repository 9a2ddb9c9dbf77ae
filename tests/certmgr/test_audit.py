"""The audit log: every line that was kept is there and whole, whatever happened behind it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certmgr import audit
from certmgr.audit import file_journal, read_journal, stream_journal
from certmgr.store import StoreUnavailable
from mesh.errors import UserError


def entries(path: Path) -> list[dict[str, Any]]:
    content = path.read_text()
    assert content == "" or content.endswith("\n")
    return [json.loads(line) for line in content.splitlines()]


def test_entries_stand_one_per_line_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"

    async def main() -> None:
        journal = file_journal(path)
        for number in range(20):
            await journal.append({"event": "issued", "number": number, "text": "a\nb\u2028ü"})

    asyncio.run(main())
    assert [entry["number"] for entry in entries(path)] == list(range(20))
    assert path.stat().st_mode & 0o777 == 0o600


def test_entries_that_come_together_are_written_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(audit.os, "fsync", synced.append)

    async def main() -> None:
        journal = file_journal(tmp_path / "audit.log")
        await asyncio.gather(*(journal.append({"event": "issued", "number": number}) for number in range(200)))

    asyncio.run(main())
    assert sorted(entry["number"] for entry in entries(tmp_path / "audit.log")) == list(range(200))
    assert 1 <= len(synced) <= 3


@pytest.mark.parametrize("torn", [b'{"event":"iss', b"", b"x" * 200_000])
def test_a_last_line_that_a_crash_cut_short_is_removed_at_the_next_start(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "audit.log"
    whole = b'{"event":"issued","number":1}\n'
    path.write_bytes(whole + torn)

    asyncio.run(file_journal(path).append({"event": "issued", "number": 2}))

    assert [entry["number"] for entry in entries(path)] == [1, 2]


@pytest.mark.parametrize("torn", [b'{"event":"iss', b"x" * 200_000])
def test_a_line_that_another_process_left_torn_meanwhile_is_removed_before_the_next_entry(
    tmp_path: Path, torn: bytes
) -> None:
    path = tmp_path / "audit.log"

    async def main() -> None:
        journal = file_journal(path)
        await journal.append({"event": "issued", "number": 1})
        with path.open("ab") as other:
            other.write(torn)
        await journal.append({"event": "issued", "number": 2})

    asyncio.run(main())
    assert [entry["number"] for entry in entries(path)] == [1, 2]


def test_a_file_that_holds_nothing_but_a_torn_line_becomes_empty(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    path.write_bytes(b'{"event"')

    file_journal(path)

    assert path.read_bytes() == b""


def test_a_log_that_was_moved_away_goes_on_in_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"

    async def main() -> None:
        journal = file_journal(path)
        await journal.append({"event": "issued", "number": 1})
        path.rename(tmp_path / "audit.log.1")
        await journal.append({"event": "issued", "number": 2})

    asyncio.run(main())
    assert [entry["number"] for entry in entries(tmp_path / "audit.log.1")] == [1]
    assert [entry["number"] for entry in entries(path)] == [2]


def test_a_full_disk_is_said_and_leaves_no_half_line(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    script = """
        import asyncio, resource, signal, sys
        from pathlib import Path
        from certmgr.audit import file_journal
        from certmgr.store import StoreUnavailable
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then the write fails with EFBIG, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        async def main():
            journal = file_journal(Path(sys.argv[1]))
            for number in range(10):
                try:
                    await journal.append({"event": "issued", "number": number})
                except StoreUnavailable as error:
                    print(number, error)
                    return
        asyncio.run(main())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), path], capture_output=True, text=True, check=True
    )

    number, _, message = done.stdout.partition(" ")
    assert "cannot be written: File too large" in message
    assert [entry["number"] for entry in entries(path)] == list(range(int(number)))


def test_what_was_kept_survives_a_kill_at_any_moment(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    script = """
        import asyncio, sys
        from pathlib import Path
        from certmgr.audit import file_journal
        async def main():
            journal = file_journal(Path(sys.argv[1]))
            number = int(sys.argv[2])
            while True:
                await asyncio.gather(*(journal.append({"event": "x" * 50, "number": number + k}) for k in range(5)))
                number += 5
                print(number, flush=True)
        asyncio.run(main())
    """
    kept = 0
    for round_ in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script), path, str(kept)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        with process:
            for _ in range(1 + 7 * round_):
                kept = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            for line in process.stdout:
                kept = int(line) if line.endswith("\n") else kept
        file_journal(path)
        numbers = {entry["number"] for entry in entries(path)}
        assert numbers >= set(range(kept))


def test_two_journals_on_one_file_do_not_mix_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"

    async def main() -> None:
        journals = [file_journal(path), file_journal(path)]
        await asyncio.gather(
            *(journals[number % 2].append({"event": "e" * 5000, "number": number}) for number in range(60))
        )

    asyncio.run(main())
    assert sorted(entry["number"] for entry in entries(path)) == list(range(60))


def test_whoever_gives_up_waiting_does_not_fail_the_others(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"

    async def main() -> None:
        journal = file_journal(path)
        first = asyncio.create_task(journal.append({"event": "issued", "number": 1}))
        second = asyncio.create_task(journal.append({"event": "issued", "number": 2}))
        await asyncio.sleep(0)
        first.cancel()
        await second
        await journal.append({"event": "issued", "number": 3})

    asyncio.run(main())
    assert {2, 3} <= {entry["number"] for entry in entries(path)}


def test_a_place_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="use another place"):
        file_journal(tmp_path / "missing" / "audit.log")


def test_a_stream_gets_the_same_lines_and_a_closed_one_stops_what_wants_to_be_logged() -> None:
    read, write = os.pipe()

    async def main() -> None:
        journal = stream_journal(write)
        await journal.append({"event": "issued", "number": 1})
        os.close(read)
        with pytest.raises(StoreUnavailable, match="Broken pipe"):
            await journal.append({"event": "issued", "number": 2})

    with os.fdopen(os.dup(read), "rb") as reader:
        asyncio.run(_first(write, reader))
    asyncio.run(main())
    os.close(write)


async def _first(write: int, reader: Any) -> None:
    await stream_journal(write).append({"event": "issued", "number": 0})
    assert json.loads(reader.readline()) == {"event": "issued", "number": 0}


def test_what_was_written_is_read_back_and_what_is_no_entry_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    written = [{"event": "issued", "number": number} for number in range(3)]

    async def main() -> None:
        journal = file_journal(path)
        for entry in written:
            await journal.append(entry)

    asyncio.run(main())
    with path.open("ab") as log:
        log.write(b"no JSON\n[]\n1\n\xff\n" + b"[" * 200_000 + b'\n{"event":"torn')
    assert list(read_journal(path)) == written
    with pytest.raises(UserError, match="cannot be read"):
        list(read_journal(tmp_path / "missing"))


@given(st.binary(max_size=300))
def test_any_bytes_are_read_back_as_entries_or_passed_over(content: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        assert all(isinstance(entry, dict) for entry in read_journal(Path(file.name)))
