"""A difference is told by what the database has or lacks."""

from typing import Any

import pytest
import sqlalchemy as sa
from alembic.operations.ops import (
    AddColumnOp,
    AlterColumnOp,
    CreateIndexOp,
    CreateTableCommentOp,
    CreateTableOp,
    CreateUniqueConstraintOp,
    DropColumnOp,
    DropConstraintOp,
    DropIndexOp,
    DropTableOp,
    ModifyTableOps,
    UpgradeOps,
)

from microorm.migrations.report import described


@pytest.mark.parametrize(
    ("operation", "told"),
    [
        (CreateTableOp("book", []), "the table 'book' is missing"),
        (DropTableOp("book"), "the table 'book' is left over"),
        (AddColumnOp("book", sa.Column("a", sa.Integer)), "the column 'book.a' is missing"),
        (DropColumnOp("book", "a"), "the column 'book.a' is left over"),
        (AlterColumnOp("book", "a", modify_nullable=True), "the column 'book.a' differs in its nullability"),
        (
            AlterColumnOp("book", "a", modify_type=sa.Text(), modify_server_default=None, modify_comment="x"),
            "the column 'book.a' differs in its type and default and comment",
        ),
        (CreateIndexOp("ix", "book", ["a"]), "the index 'ix' of 'book' is missing"),
        (DropIndexOp("ix", "book"), "the index 'ix' of 'book' is left over"),
        (CreateUniqueConstraintOp("uq", "book", ["a"]), "the constraint 'uq' of 'book' is missing"),
        (DropConstraintOp("uq", "book", type_="unique"), "the constraint 'uq' of 'book' is left over"),
        (CreateTableCommentOp("book", "x"), "the comment of 'book' differs"),
    ],
)
def test_each_kind_has_its_words(operation: Any, told: str) -> None:
    assert list(described(UpgradeOps([operation]))) == [told]
    assert list(described(UpgradeOps([ModifyTableOps("book", [operation])]))) == [told]
