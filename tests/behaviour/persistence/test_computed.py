"""Columns that the database computes: never written, and fresh after each write."""

from typing import Any

import pytest
from sqlalchemy import Computed, FetchedValue

from microorm import Field, FieldError, InvalidValue, Model, Registry, field


@pytest.fixture
def Box(Base: Any, registry: Any) -> Any:
    class Box(Base):
        width: Field[int]
        note: Field[str] = field(max_length=9, default="")
        double: Field[int | None] = field(server_default=Computed("width * 2", persisted=True))

    registry.create_all()
    return Box


def test_a_save_leaves_them_out_and_reads_them(Box, stored):
    box = Box(width=1).save()
    assert box.double == 2
    box.width = 2
    box.save()
    assert (box.double, box.changes()) == (4, {})
    box.width = 3
    box.save(update_fields=["width"])
    assert (box.double, box.changes()) == (6, {})
    box.width = Box.width + 1
    box.save()
    assert (box.width, box.double, box.changes()) == (4, 8, {})
    assert stored(Box, "width", "double") == [(4, 8)]
    assert Box.objects.create(width=5).double == 10


def test_many_rows_at_once_leave_them_out_and_read_them(Box, stored):
    boxes = Box.objects.bulk_create([Box(width=n) for n in range(3)])
    for box in boxes:
        box.width += 10
    gone = Box(width=0)
    gone.id = 99
    assert Box.objects.bulk_update([*boxes, gone], ["width"]) == 3
    assert [(box.double, box.changes()) for box in boxes] == [(20, {}), (22, {}), (24, {})]
    assert Box.objects.filter(width=10).update(width=1) == 1
    assert stored(Box, "double") == [2, 22, 24]


def test_a_rollback_gives_back_the_value_from_before(Box, undone):
    box = Box(width=1).save()
    with undone():
        box.width = 5
        box.save()
        assert box.double == 10
    assert box.double == 2


def test_a_partial_instance_reads_them_as_well(Box):
    Box(width=1).save()
    box = Box.objects.only("width").get()
    box.width = 7
    box.save()
    assert (box.double, box.note) == (14, "")


def test_to_change_one_is_an_error_before_any_sql(Box, wire):
    box = Box(width=1).save()
    box.double = 5
    with wire.record() as sent:
        with pytest.raises(InvalidValue, match=r"^Box.double is computed by the database"):
            box.save()
        for change in (
            lambda: box.save(update_fields=["double"]),
            lambda: Box.objects.update(double=5),
            lambda: Box.objects.bulk_update([box], ["double"]),
            lambda: Box.objects.bulk_create([box], on_conflict="update", update_fields=["double"]),
        ):
            with pytest.raises(FieldError, match="double is computed by the database"):
                change()
    assert not sent


def test_a_new_row_is_given_no_value_for_one(Box, wire, stored):
    """Also where the value would be looked for first: no new row would have it, so that each call would add one."""
    assigned = Box(width=2)
    assigned.double = 999
    partial = Box.objects.defer("double").get(id=Box(width=3).save().id)
    partial.double = 999
    with wire.record() as sent:
        for change in (
            lambda: Box.objects.create(width=2, double=999),
            lambda: Box.objects.get_or_create(width=6, double=7),
            lambda: Box.objects.get_or_create(width=6, defaults={"double": 7}),
            lambda: Box.objects.update_or_create(double=7, defaults={"width": 6}),
            lambda: Box.objects.update_or_create(width=6, defaults={"double": 7}),
            lambda: Box.objects.update_or_create(width=6, defaults={}, create_defaults={"double": 7}),
        ):
            with pytest.raises(FieldError, match=r"^Box\.double is computed by the database"):
                change()
        for save in (
            assigned.save,
            partial.save,
            lambda: Box.objects.bulk_create([assigned]),
            lambda: Box.objects.bulk_update([partial], ["width"]),
        ):
            with pytest.raises(InvalidValue, match=r"^Box\.double is computed by the database"):
                save()
    assert sent == []
    assert (assigned.id, assigned.double, partial.double) == (None, 999, 999)
    assert stored(Box, "width") == [3]


def test_a_deleted_or_copied_row_is_inserted_with_its_own(Box, stored):
    box = Box(width=1).save()
    box.delete()
    box.width = 2
    box.save()
    box.id = None
    box.save()
    assert (box.double, stored(Box, "double")) == (4, [4, 4])


def test_the_column_of_an_existing_table_is_declared_as_fetched(Box, databases):
    """`FetchedValue()` stands for whatever the database does."""

    class Crate(Model, table="box", registry=Registry(databases)):
        width: Field[int]
        note: Field[str] = field(max_length=9, default="")
        double: Field[int | None] = field(server_default=FetchedValue())

    crate = Crate(width=2).save()
    crate.width = 4
    crate.save()
    assert crate.double == 8
