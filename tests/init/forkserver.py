"""Runs `qbitel`, and dials, inside namespaces again and again without paying for the imports each time.

One JSON request a line on stdin: the program, its arguments, its environment, the user that it runs as and the file of
its network namespace. One JSON answer a line on stdout: {"code": …, "stdout": …, "stderr": …}. Each request runs in a
fork, so nothing is carried from one to the next. It ends with its stdin.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import tempfile
import traceback
from typing import NoReturn

import cli.init  # noqa: F401  # loaded once, here
from cli.main import main
from tests.init.endpoint import dial

LIBC = ctypes.CDLL(None)
CLONE_NEWNET = 0x40000000  # linux/sched.h


def serve() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            child = os.fork()
            if child == 0:
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                enter(request["namespace"])
                os.environ.update(request["environment"])
                os.setuid(request["uid"])
                run(request["program"], request["arguments"])
            _, status = os.waitpid(child, 0)
            texts = []
            for stream in (out, err):
                stream.seek(0)
                texts.append(stream.read().decode())
        answer = {"code": os.waitstatus_to_exitcode(status), "stdout": texts[0], "stderr": texts[1]}
        print(json.dumps(answer), flush=True)


def enter(namespace: str) -> None:
    # os.setns comes with Python 3.12.
    with open(namespace, "rb") as file:  # noqa: PTH123  # a path of /proc, for its descriptor alone
        assert LIBC.setns(file.fileno(), CLONE_NEWNET) == 0


def run(program: str, arguments: list[str]) -> NoReturn:
    code = 70  # EX_SOFTWARE: what the tests see when main raises
    try:
        code = main(arguments) if program == "qbitel" else dial(arguments)
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:  # noqa: BLE001  # a fork must never return into the loop above it
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
