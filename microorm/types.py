"""Column types for migrations: `from microorm import types`, then `types.text_type(40)`.

These names do not change, so that old revisions run with later versions.
"""

from microorm.fields.documents import Document, DocumentKey, json_type
from microorm.fields.types import (
    COLLATION,
    MARIADB,
    Choice,
    Duration,
    ExactNumeric,
    UtcDateTime,
    UuidText,
    bytes_type,
    datetime_type,
    integer_type,
    text_type,
    time_type,
    uuid_type,
    value_type,
)

__all__ = [
    "COLLATION",
    "MARIADB",
    "Choice",
    "Document",
    "DocumentKey",
    "Duration",
    "ExactNumeric",
    "UtcDateTime",
    "UuidText",
    "bytes_type",
    "datetime_type",
    "integer_type",
    "json_type",
    "text_type",
    "time_type",
    "uuid_type",
    "value_type",
]
