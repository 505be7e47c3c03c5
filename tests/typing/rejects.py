"""What mypy --strict and pyright reject: each marked line, with these errors, and no other line.

Never run, only checked. A mark names the rule of each checker, once for every error that it finds in the line.
"""

from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

from microorm import Field, Model, atomic, field, on_commit, receiver, version_field
from microorm.signals import post_save


class Author(Model):
    name: Field[str] = field(max_length=100)
    born: Field[date | None] = field(default=None)


class Token(Model[UUID]):
    text: Field[str]
    made: Field[date] = field(server_default="2024-01-01")


# Class definitions


class Misspelt(Model, tabel="x"):  # error: mypy[call-arg] pyright[reportCallIssue,reportGeneralTypeIssues]
    name: Field[str]


class Unsaid(Model, table=3):  # error: mypy[arg-type] pyright[reportArgumentType,reportGeneralTypeIssues]
    name: Field[str]


class Wrong(Model):
    name: Field[str] = field(default=3)  # error: mypy[arg-type] pyright[reportAssignmentType]
    size: Field[int] = field(default=None)  # error: mypy[arg-type] pyright[reportAssignmentType]
    made: Field[date] = field(default_factory=list)  # error: mypy[arg-type] pyright[reportAssignmentType]
    price: Field[Decimal] = field(digits=8)  # error: mypy[call-overload] pyright[reportCallIssue]


def text(value: str) -> None: ...


class Validated(Model):
    stock: Field[int] = field(validate=text)  # error: mypy[arg-type] pyright[reportAssignmentType]
    size: Field[int | None] = field(validate=[text])  # error: mypy[list-item] pyright[reportAssignmentType]
    version: Field[int] = version_field()


Validated(stock=1, size=2, version=1)  # error: mypy[call-arg] pyright[reportCallIssue]


# Constructors

Author(nme="x")  # error: mypy[call-arg] pyright[reportCallIssue]
Author(name=3)  # error: mypy[arg-type] pyright[reportArgumentType]
Author()  # error: mypy[call-arg] pyright[reportCallIssue]
Author("x")  # error: mypy[call-arg] pyright[reportCallIssue]
Author(name="x", id=3)  # error: mypy[call-arg] pyright[reportCallIssue]
Token(text="x", made=date(2024, 1, 1))  # error: mypy[call-arg] pyright[reportCallIssue]


# Attributes


def attributes(author: Author, token: Token) -> None:
    author.name = 3  # error: mypy[assignment] pyright[reportAttributeAccessIssue]
    author.name = None  # error: mypy[assignment] pyright[reportAttributeAccessIssue]
    author.born = "1929"  # error: mypy[assignment] pyright[reportAttributeAccessIssue]
    author.nme  # error: mypy[attr-defined] pyright[reportAttributeAccessIssue]
    author.born.year  # error: mypy[union-attr] pyright[reportOptionalMemberAccess]
    Author.nme  # error: mypy[attr-defined] pyright[reportAttributeAccessIssue]
    number: int = token.id  # error: mypy[assignment] pyright[reportAssignmentType]
    text: str = author.id  # error: mypy[assignment] pyright[reportAssignmentType]
    author.objects  # error: mypy[arg-type] pyright[reportAttributeAccessIssue]
    print(number, text)


# Saving


def saving(author: Author) -> None:
    author.save("archive")  # error: mypy[call-arg] pyright[reportCallIssue]
    author.save(usin="archive")  # error: mypy[call-arg] pyright[reportCallIssue]
    author.save(update_fields=[3])  # error: mypy[list-item] pyright[reportArgumentType]
    author.delete("archive")  # error: mypy[call-arg] pyright[reportCallIssue]
    author.refresh_from_db("archive")  # error: mypy[call-arg] pyright[reportCallIssue]
    token: Token = author.save()  # error: mypy[assignment] pyright[reportAssignmentType]
    print(token)


# Queries


def queries() -> None:
    Author.objects.filter("name = 'x'")  # error: mypy[arg-type] pyright[reportArgumentType]
    Author.objects.filter(Author.nme == "x")  # error: mypy[attr-defined] pyright[reportAttributeAccessIssue]
    Author.objects.limit("3")  # error: mypy[arg-type] pyright[reportArgumentType]
    Author.objects.first().name  # error: mypy[union-attr] pyright[reportOptionalMemberAccess]
    tokens: list[Token] = Author.objects.all()  # error: mypy[assignment] pyright[reportAssignmentType]
    Author.objects.bulk_create([Token(text="x")])  # error: mypy[list-item] pyright[reportArgumentType]
    Author.objects.fliter(name="x")  # error: mypy[attr-defined] pyright[reportAttributeAccessIssue]
    print(tokens)


def many(authors: list[Author]) -> None:
    objects = Author.objects
    objects.bulk_create(authors, on_conflict="replace")  # error: mypy[arg-type] pyright[reportArgumentType]
    objects.bulk_create(authors, signals="none")  # error: mypy[arg-type] pyright[reportArgumentType]
    objects.bulk_create(authors, unique_fields=[3])  # error: mypy[list-item] pyright[reportArgumentType]
    objects.bulk_create(authors, progress=print_one)  # error: mypy[arg-type] pyright[reportArgumentType]
    objects.bulk_create(authors, 100)  # error: mypy[call-arg] pyright[reportCallIssue]
    objects.bulk_update(authors)  # error: mypy[call-arg] pyright[reportCallIssue]
    objects.bulk_update(authors, [3])  # error: mypy[list-item] pyright[reportArgumentType]
    objects.bulk_update([Token(text="x")], ["name"])  # error: mypy[list-item] pyright[reportArgumentType]
    objects.get_or_create(["name"])  # error: mypy[arg-type] pyright[reportArgumentType]
    objects.get_or_create(name="x").name  # error: mypy[attr-defined] pyright[reportAttributeAccessIssue]
    objects.update_or_create({1: "x"})  # error: mypy[dict-item] pyright[reportArgumentType]


def print_one(done: int) -> None: ...


def ends() -> None:
    objects = Author.objects
    for (name,) in objects.values(Author.name):
        name.year  # error: mypy[attr-defined] pyright[reportAttributeAccessIssue]
    ids: list[int] = objects.scalars(Author.name)  # error: mypy[arg-type] pyright[reportAssignmentType]
    objects.scalars(3)  # error: mypy[call-overload] pyright[reportCallIssue,reportArgumentType]
    objects.values("name", 3)  # error: mypy[call-overload] pyright[reportCallIssue,reportArgumentType]
    objects.values(Author.nme)  # error: mypy[attr-defined] pyright[reportAttributeAccessIssue]
    objects.aggregate(n=3)  # error: mypy[arg-type] pyright[reportArgumentType]
    objects.aggregate(Author.name)  # error: mypy[arg-type] pyright[reportArgumentType]
    objects.explain(format="tree")  # error: mypy[arg-type] pyright[reportArgumentType]
    objects.for_update(True)  # error: mypy[call-arg] pyright[reportCallIssue]
    objects.iterate(chunk="3")  # error: mypy[arg-type] pyright[reportArgumentType]
    objects.last().name  # error: mypy[union-attr] pyright[reportOptionalMemberAccess]
    print(ids)


# Signals and transactions


@receiver(post_save, sender=Author)
def announce(sender: type[Author], instance: Author, **kwargs: Any) -> int:
    return instance.id


@atomic
def rename(author: Author, name: str) -> Author:
    author.name = name
    return author.save()


def calls(author: Author) -> None:
    announce(Author, "x")  # error: mypy[arg-type] pyright[reportArgumentType]
    rename(author)  # error: mypy[call-arg] pyright[reportCallIssue]
    rename(author, 3)  # error: mypy[arg-type] pyright[reportArgumentType]
    text: str = rename(author, "x")  # error: mypy[assignment] pyright[reportAssignmentType]
    atomic(read_only=True)  # error: mypy[call-overload] pyright[reportCallIssue]
    on_commit("x")  # error: mypy[arg-type] pyright[reportArgumentType]
    post_save.connect(3)  # error: mypy[type-var] pyright[reportArgumentType]
    print(text)


# Awaited calls


async def awaited(author: Author) -> None:
    await author.asave("archive")  # error: mypy[call-arg] pyright[reportCallIssue]
    await author.asave(usin="archive")  # error: mypy[call-arg] pyright[reportCallIssue]
    await author.asave(update_fields=[3])  # error: mypy[list-item] pyright[reportArgumentType]
    await author.adelete("archive")  # error: mypy[call-arg] pyright[reportCallIssue]
    await author.arefresh_from_db("archive")  # error: mypy[call-arg] pyright[reportCallIssue]
    await author.aload()  # error: mypy[call-arg] pyright[reportCallIssue]
    await author.aload(3)  # error: mypy[arg-type] pyright[reportArgumentType]
    token: Token = await author.asave()  # error: mypy[assignment] pyright[reportAssignmentType]
    unawaited: Author = author.asave()  # error: mypy[assignment] pyright[reportAssignmentType]
    one: Token = await Author.objects.aget(name="x")  # error: mypy[assignment] pyright[reportAssignmentType]
    sure: Author = await Author.objects.afirst()  # error: mypy[assignment] pyright[reportAssignmentType]
    number: str = await Author.objects.acount()  # error: mypy[assignment] pyright[reportAssignmentType]
    await Author.objects.abulk_create([token])  # error: mypy[list-item] pyright[reportArgumentType]
    await Author.objects.abulk_update([author])  # error: mypy[call-arg] pyright[reportCallIssue]
    await Author.objects.aget_or_create(3, name="x")  # error: mypy[arg-type] pyright[reportArgumentType]
    await Author.objects.ain_bulk(3)  # error: mypy[arg-type] pyright[reportArgumentType]
    await Author.objects.aaggregate(Author.name)  # error: mypy[arg-type] pyright[reportArgumentType]
    await Author.objects.aexplain(format="html")  # error: mypy[arg-type] pyright[reportArgumentType]
    rows = Author.objects
    ids: list[int] = await rows.ascalars(Author.name)  # error: mypy[arg-type] pyright[reportAssignmentType]
    async for other in Author.objects:
        token = other  # error: mypy[assignment] pyright[reportAssignmentType]
    async for other in Author.objects.iterate("3"):  # error: mypy[arg-type] pyright[reportArgumentType]
        token = other  # error: mypy[assignment] pyright[reportAssignmentType]
    for other in Author.objects.aall():  # error: mypy[attr-defined] pyright[reportGeneralTypeIssues]
        print(other)
    await Author.objects  # error: mypy[misc] pyright[reportGeneralTypeIssues]
    async with atomic(3):  # error: mypy[call-overload] pyright[reportArgumentType,reportCallIssue]
        pass
    async for _ in atomic():  # error: mypy[attr-defined] pyright[reportGeneralTypeIssues]
        pass
    print(unawaited, one, sure, number, ids)


@atomic
async def in_a_block(author: Author) -> int:
    return author.id


async def decorated(author: Author) -> None:
    await in_a_block("x")  # error: mypy[arg-type] pyright[reportArgumentType]
    name: str = await in_a_block(author)  # error: mypy[assignment] pyright[reportAssignmentType]
    print(name)
