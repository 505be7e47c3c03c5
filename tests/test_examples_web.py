"""The web examples run as real servers, and answer over HTTP."""

import json
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.http_server import WAIT
from tests.programs import Program

pytestmark = [pytest.mark.slow, pytest.mark.backends("sqlite-file", "postgresql", "mariadb")]

ROOT = Path(__file__).parent.parent
FASTAPI = ("-m", "uvicorn", "examples.fastapi_app.main:app", "--port", "0")
FLASK = ("-m", "flask", "--app", "examples.flask_app.main", "run", "--port", "0")

FILL = """
import sys

import microorm
from examples.fastapi_app.models import Author, Book

microorm.configure(dict(zip(("original", "copied"), sys.argv[1:])))
for using in ("original", "copied"):
    microorm.default_registry.create_all(using)
    author = Author(name="a").save(using=using)
    Book(title=using, copies=1, author=author).save(using=using)
microorm.close()
"""


class Client:
    """Asks a server on *port*."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Make one request: status, and the answer, read as JSON if it is that."""
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=WAIT)) as connection:
            sent = None if body is None else json.dumps(body)
            connection.request(method, path, sent, {"Content-Type": "application/json"})
            response = connection.getresponse()
            text = response.read().decode()
            is_json = response.getheader("Content-Type") == "application/json"
            return response.status, json.loads(text) if is_json else text

    def leave(self, path: str) -> None:
        """Read where an answer begins, and go away."""
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=WAIT)) as connection:
            connection.request("GET", path)
            assert connection.getresponse().read(1)


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


@pytest.mark.parametrize("server", [FASTAPI, FLASK], ids=["fastapi", "flask"])
def test_a_web_example_answers(server: tuple[str, ...], program: Program, url: str) -> None:
    """Lists, adds, returns, updates and streams; refuses what it cannot store; writes news after commits only."""
    with program.server(*server, DATABASE_URL=url) as port:
        client = Client(port)
        assert client.ask("GET", "/books") == (200, [])
        status, dune = client.ask("POST", "/books", {"title": "Dune", "author": "Herbert", "copies": 2})
        author = {"id": 1, "name": "Herbert"} if server is FASTAPI else "Herbert"
        assert (status, dune) == (201, {"id": 1, "title": "Dune", "copies": 2, "author": author})
        assert client.ask("POST", "/books", {"title": "Whipping Star", "author": "Herbert"})[0] == 201
        assert client.ask("POST", "/books", {"author": "a new name"})[0] == 422
        assert client.ask("GET", "/books/1") == (200, dune)
        assert client.ask("GET", "/books/99")[0] == 404
        assert client.ask("PATCH", "/books/1", {"copies": 3}) == (200, dune | {"copies": 5})
        assert client.ask("PATCH", "/books/99", {"copies": 3})[0] == 404
        _, books = client.ask("GET", "/books")
        assert [book["title"] for book in books] == ["Whipping Star", "Dune"]
        status, lines = client.ask("GET", "/books/export")
        assert (status, len(lines.splitlines())) == (200, 2)
        client.leave("/books/export")
        assert client.ask("GET", "/news") == (200, ["new: Dune", "new: Whipping Star"])


@pytest.mark.backends("sqlite-file", "postgresql")
def test_the_router_of_the_example_reads_from_the_replica(program: Program, url: str, other_url: str) -> None:
    """What a block reads comes from where it writes."""
    assert program.python("-c", FILL, url, other_url) == ("", "", 0)
    with program.server(*FASTAPI, DATABASE_URL=url, REPLICA_URL=other_url) as port:
        client = Client(port)
        assert client.ask("PATCH", "/books/1", {"copies": 1})[1]["title"] == "original"
        assert client.ask("POST", "/books", {"title": "new", "author": "a"})[0] == 201
        assert [book["title"] for book in client.ask("GET", "/books")[1]] == ["copied"]
        assert client.ask("GET", "/books/1")[1]["copies"] == 1


def test_the_files_of_the_web_examples_are_short() -> None:
    files = [*ROOT.glob("examples/f*_app/*.py"), ROOT / "examples/async_flights.py"]
    assert len(files) == 10
    assert [path.name for path in files if len(path.read_text().splitlines()) >= 120] == []
