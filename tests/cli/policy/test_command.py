"""The command as a whole."""

from __future__ import annotations

import subprocess
import sys

from tests.cli.policy.conftest import Folder, Policy
from tests.mesh.written import strict


def test_every_command_has_its_help(policy: Policy) -> None:
    for command in ("build", "check", "explain", "diff"):
        outcome = policy(command, "--help")
        assert outcome.code == 0
        assert outcome.output.startswith(f"usage: qbitel policy {command}")
        assert command in policy("--help").output


def test_what_is_no_command_is_one_line(policy: Policy) -> None:
    assert "invalid choice: 'guess'" in policy("guess").refusal
    assert "required: COMMAND" in policy().refusal


def test_it_is_a_command_of_qbitel(folder: Folder) -> None:
    folder.write("a.yaml", strict())

    ended = subprocess.run(
        [sys.executable, "-c", "import sys; from cli.main import main; sys.exit(main(sys.argv[1:]))",
         "policy", "check", str(folder.path)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (0, "1 file, 1 resource: nothing is wrong\n")
