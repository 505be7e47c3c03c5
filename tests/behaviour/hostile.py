"""Hostile: strings that would do harm where one became a part of SQL, of a format, or of a parameter's name.

Each has MARK in it, which nothing else has: where MARK is in what was sent, a string has become SQL.
"""

MARK = "zqx"

SHAPES = (
    MARK,
    f"{MARK}'",
    f"'{MARK}",
    f"{MARK}''",
    f'{MARK}"',
    f'"{MARK}"',
    f"{MARK}`",
    f"`{MARK}`",
    f"[{MARK}]",
    f"{MARK}\\",
    f"\\'{MARK}",
    f"{MARK} --",
    f"--{MARK}",
    f"{MARK}#",
    f"{MARK};",
    f"/*{MARK}*/",
    f"/*!50000 {MARK}*/",
    f"'; DROP TABLE book; -- {MARK}",
    f"1); DELETE FROM book; -- {MARK}",
    f"title; DROP TABLE {MARK}",
    f"title DESC, {MARK}",
    f"title/**/{MARK}",
    f"book.title {MARK}",
    f"title'{MARK}",
    f"' OR '1'='1' {MARK}",
    f"' UNION SELECT {MARK}",
    f"SELECT {MARK}",
    f"title\n{MARK}",
    f"\t{MARK}\r\n",
    f" {MARK} ",
    f"%s{MARK}",
    f"%({MARK})s",
    f"%{MARK}",
    f"%%{MARK}%%",
    f":{MARK}",
    f"::{MARK}",
    f"?{MARK}",
    f"${MARK}$",
    f"$1{MARK}",
    f"@{MARK}",
    f"{{{MARK}}}",
    f"{{{MARK}!r:>{{width}}}}",
    f"{{{MARK}.__class__}}",
    f"${{{MARK}}}",
    f"\u02bc{MARK}",
    f"\uff07{MARK}\u2019",
    f"\uff02{MARK}",
    f"\u037e{MARK}",
    f"\ufeff{MARK}\u200b",
    f"\u202e{MARK}",
    f"t\u0456tle{MARK}",
    f"\U0001f989{MARK}",
    f"__{MARK}__",
    f"__POSTCOMPILE_{MARK}",
    f"[POSTCOMPILE_{MARK}]",
    f"{MARK}" + "x" * 5_000,
)
"""What a text field takes."""

UNFIT = (f"{MARK}\0", f"\0'; {MARK}", f"{MARK}\ud800")
"""What none of the databases takes."""

CORPUS = (
    *SHAPES,
    *UNFIT,
    "",
    " ",
    "*",
    "1",
    "NULL",
    "title ",
    "Title",
    "title\0",
    "id; --",
    "author.name",
    "__class__",
    "_sa_x",
)
"""What names no field, no alias, no option."""
