"""Tables: lines with tabs to a pipe, drawn at a terminal, in colour where that is wanted."""

from pathlib import Path

import pytest

from microorm.cli.output import print_table, shown

ROWS = [("a", "first\tline\nand more"), ("[bold]b[/]", ":smile:")]


def test_to_a_pipe_a_row_is_a_line(capsys, monkeypatch) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    print_table(("one", "two"), ROWS, {"a": "red"})
    assert capsys.readouterr().out == "one\ttwo\na\tfirst line and more\n[bold]b[/]\t:smile:\n"


@pytest.mark.parametrize("no_color", [False, True])
def test_at_a_terminal_it_is_drawn(capsys, monkeypatch, no_color: bool) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "60")
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    else:
        monkeypatch.delenv("NO_COLOR", raising=False)
    print_table(("one", "two"), ROWS, {"a": "red"})
    drawn = capsys.readouterr().out
    assert "\t" not in drawn
    assert "[bold]b[/]" in drawn
    assert ":smile:" in drawn
    assert ("\x1b[31ma" in drawn) is not no_color


def test_at_a_terminal_a_column_without_a_value_is_left_out(capsys, monkeypatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    print_table(("one", "two", "three"), [("a", "-", "b"), ("c", "-", "-")])
    drawn = capsys.readouterr().out
    assert "one" in drawn
    assert "two" not in drawn
    assert "three" in drawn


def test_a_path_is_shown_from_here(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shown(tmp_path / "a" / "b.py") == "a/b.py"
    assert shown(Path("/elsewhere/b.py")) == "/elsewhere/b.py"
