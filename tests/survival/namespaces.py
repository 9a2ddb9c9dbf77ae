"""Work inside a network namespace: sockets and processes made there stay there."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from typing import TypeVar

from cli.demo.confine import CLONE_NEWNET, check, libc
from cli.demo.network import Namespace

T = TypeVar("T")


def inside(place: Namespace, work: Callable[[], T]) -> T:
    """Do `work` in `place` and return its result, or raise what it raised. Threads that it starts are there too."""
    results: list[T] = []
    failures: list[BaseException] = []

    def body() -> None:
        try:
            check(libc.setns(place.descriptor, CLONE_NEWNET), "setns")
            results.append(work())
        except BaseException as error:  # noqa: BLE001  # pytest's own failures are no Exceptions
            failures.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


def command(*words: str) -> None:
    """Run a program where the calling thread is; it must succeed."""
    subprocess.run(words, check=True, capture_output=True, timeout=60)
