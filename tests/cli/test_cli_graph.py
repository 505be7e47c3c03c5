"""`microorm signals --graph` draws senders, signals and receivers, as text or by Graphviz."""

import sys
from pathlib import Path
from typing import Any

import pytest
from click import ClickException

from microorm.cli import graph as graphs
from microorm.cli.graph import Graph, dot, mermaid, svg
from microorm.cli.signals import ReceiverInfo
from tests.programs import Program

pytestmark = pytest.mark.backends("sqlite-memory")

HOSTILE = 'a"b#c<d>&`e`\\\n}]|;%%{init: {}}%%\x1b[1m\udcff'


def info(**given: Any) -> ReceiverInfo:
    values: dict[str, Any] = {
        "signal": "post_save",
        "receiver": "shop.signals.log",
        "sender": "shop.Book",
        "waiting": False,
        "file": "/shop/signals.py",
        "line": 8,
        "delivery": "immediate",
        "weak": True,
        "dispatch_uid": None,
        "is_async": False,
        "robust": False,
        "subclasses": False,
        "skip_raw": False,
    }
    return ReceiverInfo(**values | given)


SEVERAL = [
    info(),
    info(receiver="shop.signals.mail", line=12, delivery="on_commit", robust=True),
    info(receiver="shop.signals.ship", line=16, delivery="durable", is_async=True),
    info(signal="pre_save", sender=None, subclasses=True, skip_raw=True),
    info(sender="shop.Bok", waiting=True),
]


def test_a_flowchart_leads_from_senders_by_signals_to_receivers() -> None:
    assert mermaid(Graph(SEVERAL)).splitlines() == [
        "flowchart LR",
        "    %% --> immediate, -.-> after the commit, ==> durable",
        '    sender1(["every sender"])',
        '    sender2(["shop.Bok (waiting)"])',
        '    sender3(["shop.Book"])',
        '    signal1{{"pre_save"}}',
        '    signal2{{"post_save"}}',
        '    signal3{{"post_save"}}',
        '    receiver1["shop.signals.log<br/>/shop/signals.py:8"]',
        '    receiver2["shop.signals.mail<br/>/shop/signals.py:12"]',
        '    receiver3["shop.signals.ship<br/>/shop/signals.py:16"]',
        "    sender1 --- signal1",
        "    sender2 --- signal2",
        "    sender3 --- signal3",
        '    signal1 -->|"subclasses, skip_raw"| receiver1',
        "    signal2 --> receiver1",
        "    signal3 --> receiver1",
        '    signal3 -.->|"robust"| receiver2',
        '    signal3 ==>|"async"| receiver3',
    ]


@pytest.mark.parametrize("write", [mermaid, dot])
def test_the_order_does_not_depend_on_that_of_the_connections(write: Any) -> None:
    assert write(Graph(SEVERAL)) == write(Graph(SEVERAL[::-1]))


def test_names_cannot_break_the_text() -> None:
    hostile = info(receiver=HOSTILE, sender=HOSTILE, signal=HOSTILE, file=None, line=None)
    lines = mermaid(Graph([hostile])).splitlines()
    shown = "a#34;b#35;c#60;d#62;#38;#96;e#96;\\ }]|;#37;#37;{init: {}}#37;#37;\\x1b[1m\\udcff"
    assert lines[2:5] == [
        f'    sender1(["{shown}"])',
        f'    signal1{{{{"{shown}"}}}}',
        f'    receiver1["{shown}"]',
    ]
    in_dot = dot(Graph([hostile]))
    shown = r"a\"b#c<d>&amp;`e`\\ }]|;%%{init: {}}%%\\x1b[1m\\udcff"
    assert f'sender1 [shape=ellipse, label="{shown}"]' in in_dot


def test_deliveries_have_lines_of_their_own_in_graphviz() -> None:
    edges = [line.strip() for line in dot(Graph(SEVERAL)).splitlines() if "style=" in line]
    assert edges == [
        'signal1 -> receiver1 [style=solid, label="subclasses, skip_raw"]',
        "signal2 -> receiver1 [style=solid]",
        "signal3 -> receiver1 [style=solid]",
        'signal3 -> receiver2 [style=dashed, label="robust"]',
        'signal3 -> receiver3 [style=bold, label="async"]',
    ]


def test_no_receivers_are_an_empty_graph() -> None:
    assert mermaid(Graph([])).startswith("flowchart LR\n")
    assert dot(Graph([])).endswith("\n}")


@pytest.fixture
def program_dot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write a program `dot`, the only one on the path."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def write(code: str) -> None:
        path = tmp_path / "dot"
        path.write_text(f"#!{sys.executable}\nimport sys\n{code}\n")
        path.chmod(0o755)

    return write


def test_graphviz_makes_the_picture(program_dot: Any) -> None:
    program_dot("print('<svg>', sys.argv[1:], sys.stdin.read(), '</svg>')")
    graph = Graph(SEVERAL)
    assert svg(graph) == f"<svg> ['-Tsvg'] {dot(graph)} </svg>"


def test_an_error_of_graphviz_is_passed_on(program_dot: Any) -> None:
    program_dot("sys.exit('no\\nfonts')")
    with pytest.raises(ClickException, match="has failed with status 1: no fonts"):
        svg(Graph([]))


def test_without_graphviz_the_error_says_what_does_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        ClickException, match="'dot' is not on the path; --format mermaid and --format dot do not"
    ):
        svg(Graph([]))


def test_the_command_draws(invoke: Any, shop: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(graphs.WRITERS, "svg", lambda graph: "<svg/>")  # type: ignore[arg-type]
    assert invoke("signals", "--graph").stdout.startswith("flowchart LR\n")
    assert invoke("signals", "--graph", "--format", "dot").stdout.startswith("digraph signals {\n")
    assert invoke("signals", "--graph", "--format", "svg").stdout == "<svg/>\n"


def test_options_that_cannot_be_combined_are_refused(invoke: Any, shop: Program) -> None:
    for arguments in (["--graph", "--json"], ["--format", "dot"]):
        done = invoke("signals", *arguments)
        assert done.exit_code == 2
        assert "--graph" in done.stderr
