"""The order of a delete: rows that refer to others first, and as few keys as possible set to NULL."""

import sys
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from microorm.persistence.collector import CollectedRow, connected_components, delete_order


class Key:
    """The attributes of a foreign key that the order depends on."""

    def __init__(self, *, nullable: bool, constrained: bool) -> None:
        self.field = SimpleNamespace(nullable=nullable)
        self.constrained = constrained


LONG = sys.getrecursionlimit() + 1000

NULLABLE = Key(nullable=True, constrained=True)
NEEDED = Key(nullable=False, constrained=True)
UNCHECKED = Key(nullable=False, constrained=False)


def rows_of(model: str, *keys: int) -> list[CollectedRow]:
    return [CollectedRow(model, (key,), None) for key in keys]


def refer(child: CollectedRow, parent: CollectedRow, key: Any = NEEDED) -> None:
    parent.dependants.append((child, key))


def shown(steps: list[Any]) -> list[Any]:
    return [(model, [[row.key[0] for row in layer] for layer in layers]) for model, layers in steps]


def test_the_rows_of_a_model_that_refers_to_another_go_before_its_rows() -> None:
    """Each model is one step, and its rows keep their order."""
    authors, books, reviews = rows_of("author", 2, 1), rows_of("book", 1), rows_of("review", 5, 4)
    referring = {"author": ["book"], "book": ["review", "loan"], "review": []}
    steps, cut = delete_order({"author": authors, "book": books, "review": reviews}, referring.__getitem__)
    assert shown(steps) == [("review", [[5, 4]]), ("book", [[1]]), ("author", [[2, 1]])]
    assert cut == {}


def test_the_rows_of_a_tree_go_from_its_leaves() -> None:
    root, left, right, leaf = rows = rows_of("node", 1, 2, 3, 4)
    for child, parent in ((left, root), (right, root), (leaf, left)):
        refer(child, parent)
    steps, cut = delete_order({"node": rows}, lambda model: ["node"])
    assert shown(steps) == [("node", [[3, 4], [2], [1]])]
    assert cut == {}


def test_a_row_that_refers_to_itself_is_cut_only_where_it_would_be_in_its_own_way() -> None:
    (row,) = rows = rows_of("node", 1)
    refer(row, row, NULLABLE)
    steps, cut = delete_order({"node": rows}, lambda model: ["node"])
    assert (shown(steps), cut) == ([("node", [[1]])], {})
    steps, cut = delete_order({"node": rows}, lambda model: ["node"], row_by_row=True)
    assert (shown(steps), cut) == ([("node", [[1]])], {NULLABLE: {row: None}})


def test_rows_of_a_circle_are_cut_where_a_key_may_be_null_and_only_there() -> None:
    """A row outside the cycle keeps its key, and so does one whose key is not checked."""
    first, second, outside, above = rows = rows_of("node", 1, 2, 3, 4)
    refer(first, second, NULLABLE)
    refer(second, first, NEEDED)
    refer(outside, first, NULLABLE)
    refer(first, above, NULLABLE)
    steps, cut = delete_order({"node": rows}, lambda model: ["node"])
    assert cut == {NULLABLE: {first: None}}
    assert shown(steps) == [("node", [[3], [2], [1], [4]])]
    one, other = pair = rows_of("node", 1, 2)
    refer(one, other, UNCHECKED)
    refer(other, one, NEEDED)
    steps, cut = delete_order({"node": pair}, lambda model: ["node"])
    assert (shown(steps), cut) == ([("node", [[2], [1]])], {})


def test_a_circle_that_cannot_be_cut_goes_together() -> None:
    first, second = rows = rows_of("node", 1, 2)
    refer(first, second)
    refer(second, first)
    steps, cut = delete_order({"node": rows}, lambda model: ["node"])
    assert (shown(steps), cut) == ([("node", [[1, 2]])], {})


def test_layers_of_two_models_in_a_circle_take_turns_only_where_they_must() -> None:
    """Consecutive layers of one model are one step."""
    a, b = rows_of("a", 1, 2), rows_of("b", 1, 2)
    refer(b[0], a[0])
    refer(a[1], b[0])
    refer(b[1], a[1])
    steps, _ = delete_order({"a": a, "b": b}, {"a": ["b"], "b": ["a"]}.__getitem__)
    assert shown(steps) == [("b", [[2]]), ("a", [[2]]), ("b", [[1]]), ("a", [[1]])]
    free, tied = rows_of("a", 1, 2), rows_of("b", 1)
    refer(tied[0], free[1])
    steps, _ = delete_order({"a": free, "b": tied}, {"a": ["b"], "b": ["a"]}.__getitem__)
    assert shown(steps) == [("a", [[1]]), ("b", [[1]]), ("a", [[2]])]


def test_a_long_chain_needs_no_deep_stack() -> None:
    rows = rows_of("node", *range(LONG))
    for child, parent in zip(rows[1:], rows, strict=False):
        refer(child, parent, NULLABLE)
    steps, cut = delete_order({"node": rows}, lambda model: ["node"])
    assert [layer[0].key[0] for layer in steps[0].layers] == list(reversed(range(LONG)))
    assert cut == {}
    refer(rows[0], rows[-1], NULLABLE)
    _, cut = delete_order({"node": rows}, lambda model: ["node"])
    assert len(cut[NULLABLE]) == LONG


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=20))
def test_circles_are_those_that_lead_to_each_other_ends_first(edges: list[tuple[int, int]]) -> None:
    """Compared with the transitive closure of the edges."""
    follows = {item: [to for start, to in edges if start == item] for item in range(8)}
    reached = {item: {item} for item in range(8)}
    for _ in range(8):
        for item in range(8):
            reached[item] |= {far for near in reached[item] for far in follows[near]}
    parts = connected_components(list(range(8)), follows.__getitem__)
    assert sorted(item for part in parts for item in part) == list(range(8))
    for place, part in enumerate(parts):
        for item in part:
            assert {each for each in reached[item] if item in reached[each]} == set(part)
            assert reached[item] <= {each for earlier in parts[: place + 1] for each in earlier}
