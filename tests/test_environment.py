"""What `${NAME}` stands for, and that no error repeats what may be a secret."""

import pytest
from sqlalchemy import make_url

from microorm.environment import filled, filled_url
from microorm.errors import ConfigurationError

SECRET = "p@ss:w/o?r&d #%$"
ENVIRONMENT = {"USER": "a b", "PASSWORD": SECRET, "HOST": "db", "URL": "postgresql://u:%40@h/d", "EMPTY": ""}


def test_strings_are_filled_at_whatever_depth() -> None:
    value = {"a": ["${HOST}", 1, {"b": "x-${HOST}-${EMPTY}-$$"}], "c": True}
    assert filled(value, ENVIRONMENT) == {"a": ["db", 1, {"b": "x-db--$"}], "c": True}


def test_a_value_is_quoted_where_a_url_wants_it() -> None:
    """In user, password, database and query; the host and a URL as a whole are taken as they are."""
    text = filled_url("${HOST}://${USER}:${PASSWORD}@${HOST}/${PASSWORD}?options=${PASSWORD}", ENVIRONMENT)
    url = make_url(text)
    assert (url.drivername, url.username, url.password) == ("db", "a b", SECRET)
    assert (url.host, url.database) == ("db", SECRET)
    assert url.query == {"options": SECRET}
    assert filled_url("${URL}", ENVIRONMENT) == ENVIRONMENT["URL"]
    assert filled_url("sqlite:///${USER}/x@y.db", ENVIRONMENT) == "sqlite:///a%20b/x@y.db"
    assert filled_url("sqlite:///${MEMORY}", {"MEMORY": ":memory:"}) == "sqlite:///:memory:"
    assert filled_url("sqlite:///${FILE}", {"FILE": "/a/b.db"}) == "sqlite:////a/b.db"
    assert filled_url("postgresql://u:$$${HOST}@h/d", ENVIRONMENT) == "postgresql://u:$db@h/d"


@pytest.mark.parametrize("text", ["$", "$USER", "${", "${}", "${A-B}", "x${USER", "${USER}$"])
def test_other_dollars_are_refused(text: str) -> None:
    for fill in (filled, filled_url):
        with pytest.raises(
            ConfigurationError, match=r"^has a '\$' that is neither of '\$\{NAME\}' nor of '\$\$'$"
        ):
            fill(text, ENVIRONMENT)


def test_a_missing_variable_is_named_and_nothing_else() -> None:
    with pytest.raises(ConfigurationError) as caught:
        filled_url("postgresql://u:geheim@${NOWHERE}/d", ENVIRONMENT)
    assert str(caught.value) == "names the variable 'NOWHERE', which the environment does not have"
