from __future__ import annotations

from cli.demo.options import Options


def test_options_survive_the_way_to_the_other_process() -> None:
    options = Options(once=True, app=("sh", "-c", "a 'b' ü"), app_user="nobody", port=1, keep_capture="/x y")
    assert Options.from_json(options.to_json()) == options
