"""Certificates, revocation lists and policies are replaced for ever, and some of what is put there is broken."""

from __future__ import annotations

import asyncio
import datetime
import functools
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from certmgr.authority import WorkloadRequest, issue_workload
from certmgr.files import write_workload
from mesh.spiffe import SpiffeId
from tests.proxy.conftest import Running
from tests.survival.mesh import KIB, MIB, variants, wait_for_descriptors
from tests.survival.traffic import echo, serving, under_load

# For a reload to be heard of: reading a few files and a signature check, on a machine that others use too.
SOON = 60.0


def renew(pki, folder: Path) -> None:
    """Give the workload of `folder` a new certificate and a new key, as an authority's client does."""
    identity = SpiffeId("cluster.local", ("ns", "default", "sa", folder.name))
    request = WorkloadRequest(spiffe_id=identity, validity=datetime.timedelta(hours=12))
    workload = issue_workload(request, pki.root, datetime.datetime.now(datetime.UTC))
    write_workload(folder, workload, [pki.root.certificate])


def put(path: Path, content: bytes | str, mode: int = 0o644) -> None:
    """Put a file in another's place, in one step, as everything that renews files does."""
    new = path.with_name(path.name + ".new")
    new.write_bytes(content if isinstance(content, bytes) else content.encode())
    new.chmod(mode)
    new.replace(path)


class Told:
    """A sidecar's messages, read as they come: a reload says that it has happened."""

    def __init__(self, running: Running) -> None:
        self._path = running.err
        self._seen = 0

    def skip(self) -> None:
        """What was said until now is of no interest."""
        self._seen = self._path.stat().st_size

    def news(self) -> str:
        """What was said since."""
        with self._path.open() as file:
            file.seek(self._seen)
            return file.read()


async def refreshed(running: Running, told: Told, pattern: str, change: Callable[[], object]) -> None:
    """Make the change, send SIGHUP, and wait until it says `pattern`: perhaps before, it looks by itself too."""
    told.skip()
    await asyncio.to_thread(change)
    running.process.send_signal(signal.SIGHUP)
    async with asyncio.timeout(SOON):
        while not re.search(pattern, told.news()):
            assert running.process.poll() is None, running.messages
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("words", variants((), ("--no-tunnels",)), ids=variants("tunnels", "single"))
def test_certificates_and_revocation_lists_replaced_all_the_time_cost_no_request(
    mesh, run, pki, folders, amount, saw, words
):
    count = amount(1_000 if not words else 200, short=12)

    async def main() -> None:
        async with serving(echo) as target:
            for name in ("web", "api"):
                (folders / name / "crl.pem").write_bytes(pki.revocations(number=1))
            sidecars = await asyncio.to_thread(mesh, target, *words)
            told = {name: Told(side) for name, side in sidecars.sides.items()}
            async with under_load(sidecars.port) as load:
                before = None
                for number in range(count):
                    name, folder = ("outbound", "web") if number % 2 else ("inbound", "api")
                    place = folders / folder
                    await refreshed(
                        sidecars.sides[name],
                        told[name],
                        "certificates reloaded",
                        # Every other time a list with a newer number, that bars somebody who is not here.
                        functools.partial(renew, pki, place)
                        if number % 4 < 2
                        else lambda n=number, place=place: put(
                            place / "crl.pem", pki.revocations("expired", number=n + 2)
                        ),
                    )
                    assert not load.failures, f"replacement {number}: {load.failures[:3]}"
                    if number == count // 10:
                        before = sidecars.usage()
                async with asyncio.timeout(SOON):
                    goal = load.done + 50
                    while load.done < goal:
                        await asyncio.sleep(0.01)
            assert not load.failures
            await asyncio.to_thread(sidecars.settle)
            for name, side in sidecars.sides.items():
                # Old tunnels end with their last connection.
                await asyncio.to_thread(wait_for_descriptors, side, before[name].descriptors + 16)
                grown = sidecars.usage()[name].memory - before[name].memory
                saw(f"{load.done} requests, {count} replacements: {name} {grown / KIB:+.0f} KiB since the first tenth")
                # Verified chains (512 of some 13 KB) and sessions (4 MiB) of certificates that are no more stay until
                # newer ones need their place. The rest is what the allocator keeps of its busiest moment: a tunnel that
                # was made before a renewal ends with the next sweep, and some dozens are made in these five seconds,
                # 90 KB each with the credential that it was made with.
                assert grown <= 32 * MIB
                assert side.get("health", "/healthz/ready")[0] == 200
            sidecars.check_alive()

    run(main(), 1200)


def policy(number: int) -> str:
    """One that lets our client in, and a rule that is another each time."""
    return f"""
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: who, namespace: default}}
spec:
  action: ALLOW
  rules:
  - from: [{{source: {{principals: [cluster.local/ns/default/sa/web]}}}}]
  - from: [{{source: {{ipBlocks: [10.0.{number % 256}.0/24]}}}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: who-not, namespace: default}}
spec:
  action: DENY
  rules:
  - from: [{{source: {{principals: [cluster.local/ns/default/sa/nobody-{number}]}}}}]
"""


def test_policies_replaced_all_the_time_cost_no_request(mesh, run, tmp_path, amount, saw):
    count = amount(1_000, short=12)
    folder = tmp_path / "policies"
    folder.mkdir()
    put(folder / "who.yaml", policy(0))

    async def main() -> None:
        async with serving(echo) as target:
            sidecars = await asyncio.to_thread(lambda: mesh(target, inbound=("--policy", folder)))
            told = Told(sidecars.inbound)
            async with under_load(sidecars.port) as load:
                for number in range(1, count + 1):
                    await refreshed(
                        sidecars.inbound,
                        told,
                        "policies in force",
                        functools.partial(put, folder / "who.yaml", policy(number)),
                    )
                    assert not load.failures, f"replacement {number}: {load.failures[:3]}"
                    if number % 10 == 0:  # and one that nobody can read
                        await refreshed(
                            sidecars.inbound,
                            told,
                            "policies were not reloaded",
                            functools.partial(put, folder / "who.yaml", "kind: [AuthorizationPolicy\n" + "x" * number),
                        )
            assert not load.failures
            saw(f"{load.done} requests, {count} replacements of the policies, {count // 10} broken ones between them")
            sidecars.check_alive()

    run(main(), 900)


def _truncated(path: Path) -> None:
    put(path, path.read_bytes()[:-200], path.stat().st_mode & 0o777)


def _empty(path: Path) -> None:
    put(path, b"", path.stat().st_mode & 0o777)


def _noise(path: Path) -> None:
    put(path, os.urandom(4000), path.stat().st_mode & 0o777)


def _folder_in_its_place(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _gone(path: Path) -> None:
    path.unlink()


def _pipe_in_its_place(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _readable_for_everybody(path: Path) -> None:
    put(path, path.read_bytes(), 0o644)


def _somebody_elses(name: str) -> Callable[[Path], None]:
    def swap(path: Path) -> None:
        put(path, (path.parent.parent / "good" / name).read_bytes(), 0o600)

    return swap


_ALL = (_truncated, _empty, _noise, _folder_in_its_place, _gone, _pipe_in_its_place)
_WAYS = {
    "tls.crt": _ALL,
    "tls.key": (*_ALL, _readable_for_everybody, _somebody_elses("other.key")),
    "ca.crt": _ALL,
    "crl.pem": _ALL,
}


def test_a_file_that_is_broken_in_any_way_changes_nothing_until_it_is_whole_again(mesh, run, pki, folders, amount, saw):
    ways = [(name, way) for name, all_of_them in _WAYS.items() for way in all_of_them]
    # Each way costs two reloads under load: a look at a few has to do where time is short.
    ways = ways[:: max(1, len(ways) // amount(len(ways), short=6))]

    async def main() -> None:
        async with serving(echo) as target:
            for name in ("web", "api"):
                (folders / name / "crl.pem").write_bytes(pki.revocations(number=1))
            good = folders / "good"
            shutil.copytree(folders / "web", good)
            shutil.copy(pki.base / "expired" / "tls.key", good / "other.key")
            sidecars = await asyncio.to_thread(mesh, target)
            told = Told(sidecars.outbound)
            async with under_load(sidecars.port) as load:
                for name, way in ways:
                    path = folders / "web" / name
                    await refreshed(
                        sidecars.outbound,
                        told,
                        f"were not reloaded.*{re.escape(str(path))}",
                        functools.partial(way, path),
                    )
                    goal = load.done + 10
                    async with asyncio.timeout(SOON):
                        while load.done < goal:
                            await asyncio.sleep(0.005)
                    if path.is_dir():
                        path.rmdir()
                    mode = (good / name).stat().st_mode & 0o777
                    await refreshed(
                        sidecars.outbound,
                        told,
                        "certificates reloaded",
                        functools.partial(put, path, (good / name).read_bytes(), mode),
                    )
                    assert not load.failures, f"{way.__name__} of {name}: {load.failures[:3]}"
            failed = await asyncio.to_thread(sidecars.outbound.metric, "qbitel_cert_reloads_total", result="failed")
            saw(f"{len(ways)} broken files, {failed:.0f} reloads refused, {load.done} requests, none failed")
            assert failed >= len(ways)
            sidecars.check_alive()

    run(main(), 300)
