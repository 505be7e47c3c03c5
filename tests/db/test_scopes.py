"""Scopes: the linked list of open scopes of a thread or task, in which closed ones are skipped."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import pytest

from microorm.db.blocks import ReusableContext, ScopeWarning, Using
from microorm.db.context import (
    BLOCK,
    RECEIVER,
    USING,
    Scope,
    current_alias,
    innermost,
    open_block,
    open_scopes,
    routed_aliases,
)

HERE, ELSEWHERE = object(), object()


@pytest.fixture(autouse=True)
def nothing_left_open() -> Any:
    """Check that each test begins and ends without scopes."""
    assert innermost() is None
    yield
    assert innermost() is None


def test_the_innermost_comes_first() -> None:
    """Each context has a list of its own; scopes are found by their owner."""
    outer, foreign, inner = Scope(USING, HERE, "a"), Scope(USING, ELSEWHERE, "b"), Scope(RECEIVER, HERE, "c")
    with outer, foreign, inner:
        assert innermost() is inner
        assert list(open_scopes(HERE)) == [inner, outer]
        assert list(open_scopes(ELSEWHERE)) == [foreign]
    assert (outer.closed, foreign.closed, inner.closed) == (True, True, True)


def test_the_current_alias_is_of_the_kinds_asked_for() -> None:
    """`on_commit` and `atomic` consider different kinds of scopes."""
    with Scope(RECEIVER, HERE, "a"), Scope(USING, HERE, "b"), Scope(BLOCK, HERE, "c"):
        assert current_alias(HERE, BLOCK, USING, RECEIVER) == "c"
        assert current_alias(HERE, USING, RECEIVER) == "b"
        assert current_alias(HERE, RECEIVER) == "a"
        assert current_alias(ELSEWHERE, BLOCK, USING, RECEIVER) is None
    assert current_alias(HERE, BLOCK, USING, RECEIVER) is None


def test_routing_asks_for_the_innermost_of_each_kind() -> None:
    """`using()` blocks and running receivers have separate ranks; open blocks have none."""
    assert routed_aliases(HERE) == (None, None)
    with Scope(USING, HERE, "a"), Scope(RECEIVER, HERE, "b"), Scope(BLOCK, HERE, "c"):
        assert routed_aliases(HERE) == ("a", "b")
        with Scope(USING, HERE, "d"), Scope(RECEIVER, HERE, "e"):
            assert routed_aliases(HERE) == ("d", "e")
            assert routed_aliases(ELSEWHERE) == (None, None)
        assert routed_aliases(HERE) == ("a", "b")


def test_a_block_is_found_by_its_alias() -> None:
    """Each alias has its own."""
    first, second, third = Scope(BLOCK, HERE, "a"), Scope(BLOCK, HERE, "b"), Scope(BLOCK, HERE, "a")
    with first, second, Scope(USING, HERE, "b"), Scope(BLOCK, ELSEWHERE, "c"):
        assert open_block(HERE, "a") is first
        assert open_block(HERE, "b") is second
        assert open_block(HERE, "c") is None
        with third:
            assert open_block(HERE, "a") is third
        assert open_block(HERE, "a") is first
    assert open_block(HERE, "a") is None


def test_a_scope_that_ends_out_of_turn_is_passed_over() -> None:
    """An unfinished generator may end after the scope it began in."""
    outer, inner, innermost_of_all = Scope(USING, HERE, "a"), Scope(BLOCK, HERE, "b"), Scope(USING, HERE, "c")
    outer.open()
    inner.open()
    innermost_of_all.open()
    inner.close()
    outer.close()
    assert innermost() is innermost_of_all
    assert list(open_scopes(HERE)) == [innermost_of_all]
    assert open_block(HERE, "b") is None
    innermost_of_all.close()
    assert current_alias(HERE, USING, BLOCK) is None
    assert routed_aliases(HERE) == (None, None)
    with Scope(USING, HERE, "d") as nothing:
        assert nothing is None
        found = innermost()
        assert found is not None
        assert found.parent is None  # a closed scope is not kept alive


def test_a_scope_closed_in_another_context_is_closed_in_all() -> None:
    """No token has to be reset."""
    around, scope = Scope(RECEIVER, HERE, "a"), Scope(USING, HERE, "b")
    assert (scope.closed, scope.parent) == (False, None)
    around.open()
    scope.open()
    contextvars.copy_context().run(scope.close)
    assert innermost() is around
    assert list(open_scopes(HERE)) == [around]
    assert (current_alias(HERE, RECEIVER), routed_aliases(HERE)) == ("a", (None, "a"))
    contextvars.copy_context().run(around.close)
    assert innermost() is None


def test_an_entrance_ends_the_scope_that_it_opened_last_here() -> None:
    """Nested entries of one `with` end in order."""
    entrance = ReusableContext(HERE)
    assert entrance.leaving(0) is None
    outer, inner = Scope(USING, HERE, "a"), Scope(USING, HERE, "b")
    entrance.entered += [(0, outer), (0, inner)]
    outer.open()
    inner.open()
    assert (outer.owner, outer.kind, outer.alias) == (HERE, USING, "a")
    with Scope(USING, HERE, "c"), Using(HERE, "d"):
        assert entrance.leaving(0) is inner
    assert entrance.leaving(0) is inner
    inner.close()
    assert entrance.leaving(0) is outer
    outer.close()
    assert entrance.leaving(0) is None


def test_an_entrance_left_in_another_context_ends_the_newest() -> None:
    """As if a generator is closed elsewhere; the context it was entered in notices it."""
    using = Using(HERE, "a")
    context = contextvars.copy_context()
    context.run(using.__enter__)
    assert context.run(current_alias, HERE, USING) == "a"
    assert current_alias(HERE, USING) is None
    with pytest.warns(ScopeWarning, match=r"^using\('a'\) was left in another context"):
        using.__exit__(None, None, None)
    assert context.run(current_alias, HERE, USING) is None
    using.__exit__(None, None, None)


def test_an_entrance_in_two_contexts_ends_the_scope_of_its_own() -> None:
    """As with one context manager that two threads share."""
    using = Using(HERE, "a")
    context = contextvars.copy_context()
    using.__enter__()
    context.run(using.__enter__)
    using.__exit__(None, None, None)
    assert current_alias(HERE, USING) is None
    assert context.run(current_alias, HERE, USING) == "a"
    context.run(using.__exit__, None, None, None)
    assert context.run(current_alias, HERE, USING) is None


@pytest.mark.parametrize("ended", [True, False])
def test_a_shared_entrance_that_is_left_late_leaves_the_scopes_of_others_open(ended: bool) -> None:
    """As by a generator that another thread closes, whose scope may have been ended before."""
    using = Using(HERE, "a")

    def hold() -> Iterator[None]:
        with using:
            yield

    def alias_in(context: contextvars.Context) -> str | None:
        return context.run(current_alias, HERE, USING)

    generators = [hold(), hold()]
    contexts = [contextvars.copy_context(), contextvars.copy_context()]
    for generator, context in zip(generators, contexts, strict=True):
        context.run(next, generator)
    if ended:
        contexts[0].run(lambda: next(open_scopes(HERE)).close())
    with using:
        with contextlib.nullcontext() if ended else pytest.warns(ScopeWarning):
            contexts[1].run(generators[0].close)
        assert current_alias(HERE, USING) == "a"
    assert [alias_in(context) for context in contexts] == [None, "a"]
    with pytest.warns(ScopeWarning):
        generators[1].close()
    assert alias_in(contexts[1]) is None
    assert using.entered == []


def test_an_entrance_that_cannot_tell_whose_scope_it_leaves_ends_none() -> None:
    using = Using(HERE, "a")
    contexts = [contextvars.copy_context(), contextvars.copy_context()]
    for context in contexts:
        context.run(using.__enter__)
    using.__exit__(None, None, None)
    assert [context.run(current_alias, HERE, USING) for context in contexts] == ["a", "a"]


def test_using_opens_a_scope_each_time() -> None:
    """It can be kept, entered again and nested in itself."""
    using = Using(HERE, "a")
    for _ in range(2):
        with using:
            assert current_alias(HERE, USING) == "a"
            with Using(HERE, "b"), using:
                assert current_alias(HERE, USING) == "a"
            assert current_alias(HERE, USING) == "a"
        assert current_alias(HERE, USING) is None
