"""The pytest plugin, for `-p microorm.testing.plugin` and `pytest_plugins`; where microorm is installed, pytest finds it itself."""

from pytest_microorm import *  # noqa: F403 the fixtures and hooks
