"""Column types as migrations name them: `from microorm import types`, then `types.text_type(40)`.

The names stay, so that revisions written today run with later versions.
"""

from microorm.fields.types import (
    COLLATION,
    MARIADB,
    Choice,
    Document,
    DocumentKey,
    Duration,
    ExactNumeric,
    UtcDateTime,
    UuidText,
    bytes_type,
    datetime_type,
    integer_type,
    json_type,
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
