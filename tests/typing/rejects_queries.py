"""Annotations and query classes of one's own: what both checkers reject."""

from typing import Self

from sqlalchemy import func

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


class PoetQuery(Query["Poet"]):
    def known(self) -> Self:
        return self.filter(func.count(Poet.poems.id) > 0)


class Poet(Model):
    name: Field[str] = field(max_length=100)
    poems: Related["Poem"] = related("poet")
    poem_count: Annotation[int] = annotation()

    objects = PoetQuery.as_objects()


class Poem(Model):
    poet: ForeignKey[Poet] = foreign_key()


poet = Poet(name="x", poem_count=3)  # error: mypy[call-arg] pyright[reportCallIssue]
poet.poem_count = 3  # error: mypy[assignment] pyright[reportAttributeAccessIssue]
text: str = poet.poem_count  # error: mypy[assignment] pyright[reportAssignmentType]
print(poet.other_count)  # error: mypy[attr-defined] pyright[reportAttributeAccessIssue]
Poet.objects.unknown()  # error: mypy[attr-defined] pyright[reportAttributeAccessIssue]
Poem.objects.known()  # error: mypy[attr-defined] pyright[reportAttributeAccessIssue]
Poet.objects.annotate(n=3)  # error: mypy[arg-type] pyright[reportArgumentType]
poems: list[Poem] = Poet.objects.known().all()  # error: mypy[assignment] pyright[reportAssignmentType]
