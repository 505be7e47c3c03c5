"""What was generated for a model can be read."""

from typing import Any

from microorm import Databases, Field, Model, Registry, field


def test_a_schema_explains_what_was_generated_for_it() -> None:
    with Databases({"default": "sqlite://", "unused": "sqlite://"}) as databases:
        registry = Registry(databases)

        class Book(Model, registry=registry):
            title: Field[str] = field(max_length=40)
            tags: Field[list[str]] = field(default_factory=list)

        registry.create_all("default")
        fresh = Book.__schema__.explain()
        assert "Book: the constructor\ndef __init__(_self, /, *_args, " in fresh
        assert "SELECT" not in fresh
        book = Book(title="a secret").save()
        book.save(update_fields=["title"])
        read: Any = Book.objects.filter(Book.title == "a secret").only("title").all()
        assert read == [book]
        told = Book.__schema__.explain()
        book.delete()
    for line in (
        "# the row to write of title, tags\ndef collect(values):",
        "# 'default' (sqlite): insert title, tags\nINSERT INTO book (title, tags) VALUES (?, ?)\ndef bind(row):",
        "# 'default' (sqlite): update title\nUPDATE book SET title=? WHERE book.id = ?",
        "# 'default' (sqlite): select\nSELECT book.id, book.title",
        "# 'default' (sqlite): instances of the driver's rows of id, title\ndef build(rows, state):",
    ):
        assert line in told
    assert "unused" not in told
    assert "a secret" not in told
