"""The receivers of all signals as a graph: text for Mermaid or Graphviz, and SVG by Graphviz's program `dot`."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import click

from microorm.cli.output import display_path, one_line

if TYPE_CHECKING:
    from microorm.cli.signals import ReceiverInfo

FORMATS = ("mermaid", "dot", "svg")
K = TypeVar("K", bound=Hashable)

_ANY = "every sender"
# By delivery.
_ARROWS: Mapping[str, str] = {"immediate": "-->", "on_commit": "-.->", "durable": "==>"}
_STYLES: Mapping[str, str] = {"immediate": "solid", "on_commit": "dashed", "durable": "bold"}


class Node(NamedTuple):
    """A sender, a signal of one sender, or a receiver, with the *lines* of its text."""

    name: str
    lines: tuple[str, ...]


class Edge(NamedTuple):
    """From a signal to a receiver; *label*: the options of the connection."""

    start: str
    end: str
    delivery: str
    label: str


class Graph:
    """Senders, their signals and the receivers of these, each in the order of their names, so that it changes little."""

    def __init__(self, receivers: Iterable[ReceiverInfo]) -> None:
        found = sorted(receivers, key=_order)
        self.senders = _nodes("sender", ((_sender(each), (_sender(each),)) for each in found))
        self.signals = _nodes("signal", ((_pair(each), (each.signal,)) for each in found))
        self.receivers = _nodes("receiver", ((_place(each), _place(each)) for each in found))
        self.sent = {_pair(each): _sender(each) for each in found}
        self.edges = list(dict.fromkeys(self._edge(each) for each in found))

    def _edge(self, each: ReceiverInfo) -> Edge:
        options = [name for name in ("robust", "subclasses", "skip_raw") if getattr(each, name)]
        options += ["async"] if each.is_async else []
        start, end = self.signals[_pair(each)], self.receivers[_place(each)]
        return Edge(start.name, end.name, each.delivery, ", ".join(options))

    def links(self) -> Iterator[tuple[str, str]]:
        """Yield the names of each sender and each of its signals."""
        for pair, sender in self.sent.items():
            yield self.senders[sender].name, self.signals[pair].name


def _order(each: ReceiverInfo) -> tuple[str, ...]:
    return (_sender(each), each.signal, each.receiver, each.file or "", f"{each.line or 0:9}", each.delivery)


def _sender(each: ReceiverInfo) -> str:
    if each.sender is None:
        return _ANY
    return f"{one_line(each.sender)} (waiting)" if each.waiting else one_line(each.sender)


def _pair(each: ReceiverInfo) -> tuple[str, str]:
    return (_sender(each), each.signal)


def _place(each: ReceiverInfo) -> tuple[str, ...]:
    return (each.receiver, f"{display_path(each.file)}:{each.line}") if each.file else (each.receiver,)


def _nodes(kind: str, found: Iterable[tuple[K, tuple[str, ...]]]) -> dict[K, Node]:
    nodes: dict[K, Node] = {}
    for key, lines in found:
        if key not in nodes:
            nodes[key] = Node(f"{kind}{len(nodes) + 1}", lines)
    return nodes


def mermaid(graph: Graph) -> str:
    """Return *graph* as a flowchart of Mermaid."""
    lines = ["flowchart LR", "    %% --> immediate, -.-> after the commit, ==> durable"]
    shapes = ((graph.senders, "([{}])"), (graph.signals, "{{{{{}}}}}"), (graph.receivers, "[{}]"))
    for nodes, shape in shapes:
        lines += [f"    {node.name}{shape.format(_in_mermaid(node.lines))}" for node in nodes.values()]
    lines += [f"    {sender} --- {signal}" for sender, signal in graph.links()]
    for edge in graph.edges:
        label = f"|{_in_mermaid((edge.label,))}| " if edge.label else ""
        lines.append(f"    {edge.start} {_ARROWS.get(edge.delivery, '-->')}{label or ' '}{edge.end}")
    return "\n".join(lines)


def _in_mermaid(lines: Iterable[str]) -> str:
    return '"' + "<br/>".join(_escaped(line, _MERMAID) for line in lines) + '"'


# Entities of Mermaid, whose texts are HTML; one that begins with a backquote would be Markdown, and %%{…}%% sets options.
_MERMAID = {character: f"#{ord(character)};" for character in '#"&<>`%'}
_DOT = {'"': '\\"', "\\": "\\\\", "&": "&amp;"}  # Graphviz knows the entities of HTML


def _escaped(text: str, characters: Mapping[str, str]) -> str:
    return "".join(characters.get(each, each) for each in one_line(text))


def dot(graph: Graph) -> str:
    """Return *graph* in the language of Graphviz."""
    lines = ["digraph signals {", "    rankdir=LR"]
    lines += [f'    {each} [fontname="sans-serif"]' for each in ("node", "edge")]
    shapes = ((graph.senders, "ellipse"), (graph.signals, "hexagon"), (graph.receivers, "box"))
    for nodes, shape in shapes:
        lines += [f"    {node.name} [shape={shape}, label={_in_dot(node.lines)}]" for node in nodes.values()]
    lines += [f"    {sender} -> {signal} [dir=none]" for sender, signal in graph.links()]
    for edge in graph.edges:
        label = f", label={_in_dot((edge.label,))}" if edge.label else ""
        style = _STYLES.get(edge.delivery, "solid")
        lines.append(f"    {edge.start} -> {edge.end} [style={style}{label}]")
    return "\n".join([*lines, "}"])


def _in_dot(lines: Iterable[str]) -> str:
    return '"' + "\\n".join(_escaped(line, _DOT) for line in lines) + '"'


def svg(graph: Graph) -> str:
    """Return *graph* as SVG. Raises `ClickException` where Graphviz is not installed, or fails."""
    program = shutil.which("dot")
    if program is None:
        raise click.ClickException(
            "--format svg needs Graphviz, whose program 'dot' is not on the path; --format mermaid and --format dot do not"
        )
    done = subprocess.run(
        [program, "-Tsvg"], input=dot(graph), capture_output=True, encoding="utf-8", check=False
    )
    if done.returncode:
        raise click.ClickException(
            f"{program} has failed with status {done.returncode}: {one_line(done.stderr)}"
        )
    return done.stdout.rstrip("\n")


WRITERS: Mapping[str, Callable[[Graph], str]] = {"mermaid": mermaid, "dot": dot, "svg": svg}
