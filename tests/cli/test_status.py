"""`qbitel status`: what it asks for, prints, and says where nobody answers."""

from __future__ import annotations

import http.server
import socket
import threading

import pytest

from cli.main import main


@pytest.fixture
def admin():
    """A stand-in for an admin port: it says what it was asked, and refuses `limit=wrong`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(400 if "wrong" in self.path else 200)
            self.end_headers()
            self.wfile.write(f"{self.path} of {self.headers['Host']}\n".encode())

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("words", "path"),
    [
        ([], "/state?format=text"),
        (["connections", "--limit", "5"], "/connections?limit=5&format=text"),
        (["certs", "--json"], "/certs?"),
        (["config"], "/config_dump?format=text"),
    ],
)
def test_each_word_is_a_page_of_the_admin_port(words, path, admin, capsys):
    assert main(["status", *words, "--admin", admin]) == 0
    assert capsys.readouterr().out == f"{path} of {admin}\n"


def test_a_refusal_is_the_sidecars_own_words_on_stderr(admin, capsys):
    assert main(["status", "tunnels", "--limit", "wrong", "--admin", admin]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("/tunnels?limit=wrong")


def test_where_nobody_answers_one_line_says_what_to_look_for(capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        assert main(["status", "--admin", f"127.0.0.1:{port}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"qbitel status: no sidecar answers at 127.0.0.1:{port} (Connection refused)")


def test_a_word_that_is_no_page_lists_them(capsys):
    with pytest.raises(SystemExit):
        main(["status", "clusters"])
    assert "connections" in capsys.readouterr().err
