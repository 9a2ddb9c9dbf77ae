"""One answer in two forms."""

from __future__ import annotations

import argparse
import json

import pytest

from cli.ca.answers import EXIT_NO, Answer, row


def test_an_answer_is_lines_for_people_or_one_object_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    answer = Answer(["made it", row("where", "here"), row("intermediate", "there")], {"where": "h\u00e9re"}, EXIT_NO)

    assert answer.tell(argparse.Namespace(json=False)) == 1
    assert capsys.readouterr().out == "made it\n  where        here\n  intermediate there\n"
    assert answer.tell(argparse.Namespace(json=True)) == 1
    printed = capsys.readouterr().out
    assert json.loads(printed) == {"where": "h\u00e9re"}
    assert printed.isascii()
