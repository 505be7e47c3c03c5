"""Environment: what `${NAME}` stands for in the strings of a configuration.

No error repeats a string or a value: either may hold a secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from microorm.errors import ConfigurationError

_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|(\$)|)")
_HOST = re.compile(r"[^:/]*://(?:[^:/@]*(?::[^@]*)?@)?([^/?]*)")


def filled(value: Any, environment: Mapping[str, str]) -> Any:
    """*value* with each `${NAME}` in its strings, at whatever depth, replaced from *environment*, and `$$` by `$`.

    Raises `ConfigurationError` for a name that is not there, and for any other dollar.
    """
    match value:
        case str():
            return _VARIABLE.sub(lambda found: _value(found, environment), value)
        case list():
            return [filled(item, environment) for item in value]
        case dict():
            return {name: filled(item, environment) for name, item in value.items()}
    return value


def filled_url(url: str, environment: Mapping[str, str]) -> str:
    """*url* with its variables replaced; what is put anywhere but into driver, host and port is percent-quoted.

    A value that is the whole URL is taken as it is. Raises `ConfigurationError` as `filled` does.
    """
    host, scheme = _HOST.match(url), url.find("://")

    def replaced(found: re.Match[str]) -> str:
        value, at = _value(found, environment), found.start()
        if host is None or not found[1] or at < scheme or host.start(1) <= at < host.end(1):
            return value
        return quote(value, safe="/:" if at > host.end(1) and "?" not in url[:at] else "")

    return _VARIABLE.sub(replaced, url)


def _value(found: re.Match[str], environment: Mapping[str, str]) -> str:
    name, dollar = found.groups()
    if dollar:
        return "$"
    if not name:
        raise ConfigurationError("has a '$' that is neither of '${NAME}' nor of '$$'")
    if name not in environment:
        raise ConfigurationError(f"names the variable {name!r}, which the environment does not have")
    return environment[name]
