"""Annotations and query classes of one's own: what both checkers infer."""

from datetime import datetime
from typing import Any, Self, TypeVar, assert_type

from sqlalchemy import Row, func

from microorm import (
    Annotation,
    Field,
    ForeignKey,
    Model,
    Query,
    Related,
    annotation,
    field,
    foreign_key,
    related,
)


class WriterQuery(Query["Writer"]):
    def known(self) -> Self:
        return self.filter(func.count(Writer.works.id) > 0)

    def names(self) -> list[str]:
        return self.scalars(Writer.name)


class Writer(Model):
    name: Field[str] = field(max_length=100)
    works: Related["Work"] = related("writer")
    work_count: Annotation[int] = annotation()
    latest: Annotation[datetime | None] = annotation()

    objects = WriterQuery.as_objects()
    everyone = Query["Writer"].as_objects()


class Work(Model):
    title: Field[str] = field(max_length=100)
    writer: ForeignKey[Writer] = foreign_key()


M = TypeVar("M", bound="Deletable")


class LiveQuery(Query[M]):
    def default_filter(self) -> Self:
        return self.filter(deleted_at=None)


class Deletable(Model, abstract=True):
    deleted_at: Field[datetime | None] = field(default=None)

    objects = LiveQuery[Any].as_objects()


class NoteQuery(LiveQuery["Note"]):
    def short(self) -> Self:
        return self.filter(func.length(Note.text) < 10)


class Note(Deletable):
    text: Field[str] = field(max_length=100)

    objects = NoteQuery.as_objects()


class Draft(Deletable):
    text: Field[str] = field(max_length=100)

    objects = LiveQuery["Draft"].as_objects()


class Plan(Deletable):
    text: Field[str] = field(max_length=100)


writer = Writer(name="x")  # an annotation is no argument
assert_type(writer.work_count, int)
assert_type(writer.latest, datetime | None)

assert_type(Writer.objects, WriterQuery)
assert_type(Writer.objects.known(), WriterQuery)
assert_type(Writer.objects.known().filter(name="x").annotate(n=func.count(Writer.works.id))[:2], WriterQuery)
assert_type(Writer.objects.known().all(), list[Writer])
assert_type(Writer.objects.first(), Writer | None)
assert_type(Writer.objects.names(), list[str])
assert_type(Writer.objects.unfiltered(), WriterQuery)
assert_type(writer.works.annotate(n=func.count(Work.id)).all(), list[Work])
assert_type(Work.objects.all(), list[Work])
assert_type(Note.objects.short().all(), list[Note])
assert_type(Draft.objects.unfiltered().all(), list[Draft])
assert_type(Plan.objects, LiveQuery[Any])
assert_type(Writer.everyone.all(), list[Writer])

count = func.count(Writer.works.id)
rows = Writer.objects.values(Writer.name, count.label("works"))
assert_type(rows, list[Row[str, int]])


async def awaited() -> None:
    assert_type(await Writer.objects.known().aall(), list[Writer])
    assert_type(await Writer.objects.aget(pk=1), Writer)
    async for each in Writer.objects.known():
        assert_type(each, Writer)
