"""`microorm dump` and `microorm load`."""

import json
from pathlib import Path

import pytest


@pytest.fixture
def filled(shop, invoke) -> Path:
    """The shop with an author and two books, in a file."""
    rows = [
        ("shop.Book", {"id": 1, "title": "a", "author_id": 1}),
        ("shop.Book", {"id": 2, "title": "b", "author_id": 1}),
        ("shop.Author", {"id": 1, "name": "A"}),
    ]
    file = Path("rows.json")
    file.write_text(json.dumps([{"model": label, "fields": fields} for label, fields in rows]))
    done = invoke("shell", "-c", "from shop.models import Base; Base.__options__.registry.create_all()")
    assert done.exit_code == 0, done.stderr
    return file


def test_rows_are_loaded_and_dumped(filled, invoke) -> None:
    done = invoke("load", str(filled))
    assert (done.exit_code, done.stdout) == (0, "3 rows (shop.Book 2, shop.Author 1) loaded\n"), done.stderr
    done = invoke("dump")
    assert [each["model"] for each in json.loads(done.stdout)] == ["shop.Author", "shop.Book", "shop.Book"]
    done = invoke("dump", "shop.Author", "--lines")
    assert done.stdout == '{"model": "shop.Author", "fields": {"id": 1, "name": "A"}}\n'
    done = invoke("dump", "shop", "--output", "all.jsonl.gz")
    assert done.stdout == "3 rows (shop.Author 1, shop.Book 2) written to all.jsonl.gz\n"
    done = invoke("load", "all.jsonl.gz", "--alias", "archive", "--json")
    assert json.loads(done.stdout) == {"loaded": {"shop.Author": 1, "shop.Book": 2}, "skipped": {}}
    assert json.loads(invoke("dump", "--alias", "archive").stdout)[0]["fields"]["name"] == "A"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dump", "shop.Bok"], "no model or application is labelled 'shop.Bok'; nearest: 'shop.Book'"),
        (["dump", "--alias", "archiv"], "no database named 'archiv'"),
        (["dump", "--output", "x.yaml"], "x.yaml: the name of a file must end in .json"),
        (["load", "missing.json"], "missing.json: cannot be read: No such file or directory"),
        (["load", "wrong.json"], "wrong.json, object 1: Author.nam is no field; nearest: 'name'"),
        (["load", "rows.json", "--alias", "archiv"], "no database named 'archiv'"),
    ],
)
def test_an_error_is_one_line(filled, invoke, arguments, message) -> None:
    Path("wrong.json").write_text('[{"model": "shop.Author", "fields": {"nam": 1}}]')
    done = invoke(*arguments)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(f"microorm: {message}")
    assert done.stderr.count("\n") == 1


def test_wrong_usage(filled, invoke) -> None:
    assert invoke("load").exit_code == 2
    done = invoke("dump", "--lines", "--output", "x.json")
    assert (done.exit_code, done.stderr.startswith("microorm: --lines is for standard output")) == (2, True)


def test_a_terminal_sees_a_bar(filled, invoke, monkeypatch) -> None:
    """It disappears, and leaves the line that says what was done."""
    monkeypatch.setattr("microorm.cli.fixtures.on_terminal", lambda: True)
    done = invoke("load", str(filled), FORCE_COLOR="1", COLUMNS="100")
    assert done.stdout == "3 rows (shop.Book 2, shop.Author 1) loaded\n"
    assert "loading" in done.stderr
    assert "100%" in done.stderr
