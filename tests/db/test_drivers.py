"""What is said where a scheme, a driver or a folder is not there."""

import sys
from pathlib import Path

import pytest

from microorm import ConfigurationError, Databases


@pytest.mark.parametrize(
    ("scheme", "instead"),
    [
        ("postgres", "; write postgresql+psycopg://"),
        ("pgsql", ""),
        ("sqlite3", "; nearest: 'sqlite'"),
        ("mysql+nosuch", "; write mariadb+pymysql://"),
        ("oraclette", ""),
    ],
)
def test_an_unknown_scheme_says_what_to_write(scheme: str, instead: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Databases(f"{scheme}://app@db/shop")
    told = f"the URL of database 'default' names {scheme!r}, which SQLAlchemy does not know{instead}"
    assert str(caught.value) == told


@pytest.mark.parametrize(
    ("url", "module", "told"),
    [
        ("postgresql+psycopg://db/shop", "psycopg", "; pip install 'microorm[postgres]'"),
        ("mariadb+pymysql://db/shop", "pymysql", "; pip install 'microorm[mariadb]'"),
        (
            "mysql://db/shop",
            "MySQLdb",
            "; install it, or write mariadb+pymysql:// and pip install 'microorm[mariadb]'",
        ),
    ],
)
def test_a_missing_driver_names_the_extra(
    url: str, module: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with (
        Databases(url) as databases,
        pytest.raises(
            ConfigurationError, match=r"^the driver of database 'default' is not installed: "
        ) as caught,
    ):
        databases.engine()
    assert str(caught.value).endswith(told)


def test_a_missing_folder_is_named_with_the_alias(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with Databases({"shop": f"sqlite:///{folder}/shop.db"}) as databases:
        for _ in range(2):
            with (
                pytest.raises(ConfigurationError) as caught,
                databases.connection("shop"),
            ):
                pass
            assert str(caught.value) == (
                f"database 'shop' is the file '{folder}/shop.db', and the folder '{folder}' does not exist; "
                "create it first"
            )
        folder.mkdir()
        with databases.connection("shop") as connection:
            connection.exec_driver_sql("SELECT 1")
