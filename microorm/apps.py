"""Applications: packages of models and receivers, imported and made ready in one order.

`microorm.setup([...])` creates the configurations, then imports every `models` module, then calls every
`ready()` (CONTRACT P). An instance of `Apps` stands alone; `default_apps` is the one behind `setup`.
"""

from __future__ import annotations

import re
from importlib import import_module
from importlib.util import find_spec
from threading import RLock
from types import ModuleType

from microorm.errors import ConfigurationError, nearest
from microorm.registry import Registry, default_registry

__all__ = ["AppConfig", "Apps", "default_apps", "setup"]

_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


class AppConfig:
    """One application: the package, or the module, *name*, whose models carry *label*.

    Derive from it in the package's `apps.py`, set `name` and, if the last component of the name will not do,
    `label`; override `ready`. Raises `ConfigurationError` for a name that is no dotted path, and for a label
    that is no identifier.
    """

    name: str = ""
    label: str = ""

    def __init__(self, name: str = "") -> None:
        self.name = name or self.name
        if not isinstance(self.name, str) or not _PATH.fullmatch(self.name):
            raise ConfigurationError(
                f"the name of {type(self).__qualname__} is the dotted path of its package, not {self.name!r}"
            )
        self.label = self.label or self.name.rpartition(".")[2]
        if not isinstance(self.label, str) or not self.label.isidentifier():
            raise ConfigurationError(f"the label of {self.name!r} is an identifier, not {self.label!r}")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.label!r}>"

    def ready(self) -> None:
        """Called once, when the models of all applications are there: the place to import receivers."""


class Apps:
    """The applications of one process, whose models live in *registry*.

    `configs` maps each label to its configuration, in order. `apps_ready`, `models_ready` and `ready` tell
    which of the three phases of `setup` are over (CONTRACT P1).
    """

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.configs: dict[str, AppConfig] = {}
        self.apps_ready = False
        self.models_ready = False
        self.ready = False
        self._entries: tuple[str, ...] = ()
        self._lock = RLock()
        self._running = False

    def __repr__(self) -> str:
        return f"<Apps {', '.join(map(repr, self.configs)) or 'not set up'}>"

    def setup(self, entries: list[str] | tuple[str, ...]) -> None:
        """Set up the applications: all configurations, then all `models` modules, then every `ready()`.

        An entry is the dotted path of an `AppConfig`, or of a package whose `apps.py`, if any, has exactly
        one. The same entries again do nothing; other threads wait until the first is through.

        Raises `ConfigurationError` for an entry that is neither, for names and labels that are wrong or given
        twice, for models defined under another label before, and for other entries than the first time;
        `TypeError` for what is no list or tuple of strings; `RuntimeError` when called while it runs. What an import or
        a `ready()` raises comes out as it is (CONTRACT P5). After an error nothing is set up, and `setup` may
        be called again; modules that were imported stay imported, and receivers connected.
        """
        wanted = _checked(entries)
        with self._lock:
            if self._running:
                raise RuntimeError("setup() was called by an application that it sets up")
            if self.ready:
                if wanted != self._entries:
                    raise ConfigurationError(f"other applications are set up already: {self._entries!r}")
                return
            self._running = True
            try:
                self._set_up(wanted)
            except BaseException:
                self._take_back()
                raise
            finally:
                self._running = False

    def _set_up(self, entries: tuple[str, ...]) -> None:
        configs = [_read(entry) for entry in entries]
        packages = [import_module(config.name) for config in configs]
        self._hand_over(configs)
        self.apps_ready = True
        for package in packages:
            if _has_submodule(package, "models"):
                import_module(f"{package.__name__}.models")
        self.models_ready = True
        for config in configs:
            config.ready()
        self._entries = entries
        self.ready = True

    def _hand_over(self, configs: list[AppConfig]) -> None:
        """Let the registry label the models that follow; those that came too early have the wrong label."""
        registry = self.registry
        names = {label: name for name, label in registry.apps.items()}
        for config in configs:
            if config.name in names.values():
                raise ConfigurationError(f"the application {config.name!r} is named twice")
            if (other := names.setdefault(config.label, config.name)) != config.name:
                raise ConfigurationError(
                    f"two applications are labelled {config.label!r}: {other!r} and {config.name!r}"
                )
        before = {label: registry.label(model, None) for label, model in registry.models.items()}
        self.configs = {config.label: config for config in configs}
        registry.apps.update({config.name: config.label for config in configs})
        for label, model in registry.models.items():
            if label == before[label] and label != (due := registry.label(model, None)):
                raise ConfigurationError(f"the model {due!r} was defined as {label!r}, before setup()")

    def _take_back(self) -> None:
        for config in self.configs.values():
            self.registry.apps.pop(config.name, None)
        self.configs = {}
        self.apps_ready = self.models_ready = self.ready = False


def _checked(entries: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    if not isinstance(entries, (list, tuple)):
        raise TypeError(f"setup() wants a list or tuple of applications, not {entries!r}")
    wanted = tuple(entries)
    for entry in wanted:
        if not isinstance(entry, str):
            raise TypeError(f"an application is named by its dotted path, not by {entry!r}")
        if not _PATH.fullmatch(entry):
            raise ConfigurationError(f"an application is named by its dotted path, not by {entry!r}")
    return wanted


def _read(entry: str) -> AppConfig:
    """The configuration that *entry* means (CONTRACT P4)."""
    path, _, name = entry.rpartition(".")
    if path:
        module = import_module(path)
        found = getattr(module, name, None)
        if isinstance(found, type):
            if not issubclass(found, AppConfig):
                raise ConfigurationError(f"{entry!r} is a class, but no AppConfig")
            return found()
        if not hasattr(module, "__path__"):
            known = [each.__name__ for each in _configs_of(module)]
            raise ConfigurationError(f"{path!r} has no AppConfig {name!r}{nearest(name, known)}")
    package = import_module(entry)
    if not hasattr(package, "__path__"):
        raise ConfigurationError(f"{entry!r} is neither an AppConfig nor a package, but a module")
    if not _has_submodule(package, "apps"):
        return AppConfig(entry)
    module = import_module(f"{entry}.apps")
    found_here = _configs_of(module)
    if len(found_here) != 1:
        names = ", ".join(repr(each.__name__) for each in found_here) or "none"
        raise ConfigurationError(f"{module.__name__!r} wants exactly one AppConfig; found: {names}")
    return found_here[0]()


def _configs_of(module: ModuleType) -> list[type[AppConfig]]:
    """The `AppConfig` classes that *module* defines itself; what it imported does not count."""
    classes = dict.fromkeys(value for value in vars(module).values() if isinstance(value, type))
    return [each for each in classes if issubclass(each, AppConfig) and each.__module__ == module.__name__]


def _has_submodule(package: ModuleType, name: str) -> bool:
    """Whether *package* has a module *name*, asked without importing it: what that raises is not its absence."""
    return hasattr(package, "__path__") and find_spec(f"{package.__name__}.{name}") is not None


default_apps = Apps(default_registry)
setup = default_apps.setup
