"""Transactions and routing for each request, in a real application of FastAPI behind a real server."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException
from fastapi.routing import APIRoute

from microorm import Databases, Field, Model, Registry, ScopeWarning
from microorm.http import SignalsMiddleware
from tests.http_server import asgi_server, ask


class World:
    """Two databases, `default` and `t1`, a model, and an application."""

    def __init__(self, databases: Databases) -> None:
        class Visit(Model, registry=Registry(databases), app="shop"):
            page: Field[str]

        self.databases, self.Visit = databases, Visit
        Visit.__schema__.registry.create_all()
        self.app = FastAPI()

    def save(self, page: str, *, fail: bool = False) -> dict[str, str]:
        """Save a visit, and answer with an error if *fail*."""
        self.Visit(page=page).save()
        if fail:
            raise HTTPException(409)
        return {"page": page}

    def pages(self, alias: str = "default") -> list[str]:
        return [visit.page for visit in self.Visit.objects.using(alias).order_by("id")]

    def ask(self, *paths: str) -> list[int]:
        """Ask for *paths* one after the other, and return the statuses."""
        with asgi_server(SignalsMiddleware(self.app, databases=self.databases)) as (port, _):
            return [ask(port, path=path)[0] for path in paths]


@pytest.fixture
def world(fresh_file: Callable[[], str]) -> Iterator[World]:
    with Databases({"default": fresh_file(), "t1": fresh_file()}) as databases:
        yield World(databases)


def test_an_endpoint_in_a_block_is_undone_by_an_error(world: World) -> None:
    """FastAPI reads the parameters of the decorated function; an error of HTTP is an error like any other."""

    @world.app.get("/visits/{page}")
    @world.databases.atomic
    def visit(page: str, fail: bool = False) -> dict[str, str]:
        return world.save(page, fail=fail)

    assert world.ask("/visits/a", "/visits/b?fail=1", "/visits/c?fail=nonsense", "/visits/d") == [
        200,
        409,
        422,
        200,
    ]
    assert world.pages() == ["a", "d"]


def test_a_class_of_routes_puts_each_endpoint_into_a_block(world: World) -> None:
    class AtomicRoute(APIRoute):
        def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
            super().__init__(path, world.databases.atomic(endpoint), **options)

    router = APIRouter(route_class=AtomicRoute)

    @router.get("/one")
    def one(fail: bool = False) -> dict[str, str]:
        return world.save("one", fail=fail)

    @router.get("/two")
    def two(fail: bool = False) -> dict[str, str]:
        return world.save("two", fail=fail)

    world.app.include_router(router)
    assert world.ask("/one?fail=1", "/two?fail=1", "/one", "/two") == [409, 409, 200, 200]
    assert world.pages() == ["one", "two"]


def test_an_endpoint_on_the_loop_runs_a_block_in_a_thread(world: World) -> None:
    @world.databases.atomic
    def visit(page: str, *, fail: bool) -> dict[str, str]:
        return world.save(page, fail=fail)

    @world.app.get("/visits/{page}")
    async def endpoint(page: str, fail: bool = False) -> dict[str, str]:
        return await asyncio.to_thread(visit, page, fail=fail)

    assert world.ask("/visits/a", "/visits/b?fail=1") == [200, 409]
    assert world.pages() == ["a"]


def test_an_async_dependency_routes_the_endpoints_of_both_kinds(world: World) -> None:
    async def tenant() -> AsyncIterator[None]:
        with world.databases.using("t1"):
            yield

    @world.app.get("/sync", dependencies=[Depends(tenant)])
    def sync() -> dict[str, str]:
        return world.save("sync")

    @world.app.get("/async", dependencies=[Depends(tenant)])
    async def on_the_loop() -> dict[str, str]:
        return world.save("async")

    @world.app.get("/plain")
    def plain() -> dict[str, str]:
        return world.save("plain")

    assert world.ask("/sync", "/async", "/plain") == [200, 200, 200]
    assert (world.pages(), world.pages("t1")) == (["plain"], ["sync", "async"])


def test_a_sync_dependency_that_routes_nothing_is_warned_of(world: World) -> None:
    """FastAPI enters and leaves it in copies of the context, which the endpoint is not in."""

    def tenant() -> Iterator[None]:
        with world.databases.using("t1"):
            yield

    @world.app.get("/", dependencies=[Depends(tenant)])
    def endpoint() -> dict[str, str]:
        return world.save("astray")

    with pytest.warns(
        ScopeWarning, match=r"^using\('t1'\) was left in another .*`async def`.*'Requests'$"
    ) as caught:
        assert world.ask("/") == [200]
    assert [(each.category, each.filename) for each in caught] == [(ScopeWarning, __file__)]
    assert (world.pages(), world.pages("t1")) == (["astray"], [])


@pytest.mark.parametrize("status", [200, 409])
def test_a_block_in_a_sync_dependency_is_warned_of_and_ended(world: World, status: int) -> None:
    """With the request, whether that fails or not; the next one finds the database unlocked."""

    def transaction() -> Iterator[None]:
        with world.databases.atomic():
            yield

    @world.app.get("/", dependencies=[Depends(transaction)])
    def endpoint() -> dict[str, str]:
        if status != 200:
            raise HTTPException(status)
        return {}

    @world.app.get("/next")
    def after() -> dict[str, str]:
        return world.save("next")

    with pytest.warns(ScopeWarning, match="^the block on 'default' was left in another .*`@atomic`"):
        assert world.ask("/", "/next") == [status, 200]
    assert world.pages() == ["next"]
    with world.databases.atomic(durable=True):
        pass
