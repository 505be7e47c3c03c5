"""Applications: packages of models and receivers.

`microorm.setup([...])` creates the configuration of each, then imports all `models` modules, then calls all `ready()`
methods. It uses the instance `default_apps` of `Apps`.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from importlib.util import find_spec
from threading import RLock
from types import ModuleType

from microorm.errors import ConfigurationError, nearest
from microorm.messages import brief
from microorm.registry import Registry, default_registry
from microorm.signals import ModelSignal

_TO_SETUP_CALL = 3

__all__ = ["AppConfig", "Apps", "default_apps", "setup"]


class AppConfig:
    """The configuration of an application: its package *name*, and the *label* of its models.

    Subclass it in the package's `apps.py`, set `name`, and optionally `label` (by default the last part of the name),
    and override `ready`. Raises `ConfigurationError` for an invalid name or label.
    """

    name: str = ""
    label: str = ""

    def __init__(self, name: str = "") -> None:
        self.name = name or self.name
        if not isinstance(self.name, str) or not _is_dotted_path(self.name):
            raise ConfigurationError(
                f"the name of {type(self).__qualname__} must be the dotted path of its package, not {self.name!r}"
            )
        self.label = self.label or self.name.rpartition(".")[2]
        if not isinstance(self.label, str) or not self.label.isidentifier():
            raise ConfigurationError(f"the label of {self.name!r} must be an identifier, not {self.label!r}")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.label!r}>"

    def ready(self) -> None:
        """Import receivers here; this is called once, after all models have been imported."""


class Apps:
    """The applications of one process, with the *registry* of their models.

    `configs` maps each label to its configuration, in order. `apps_ready`, `models_ready` and `ready` are set when the
    three phases of `setup` are complete.
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
        """Set up the applications: create all configurations, import all `models` modules, call all `ready()`.

        An entry is the dotted path of an `AppConfig`, or of a package; if the package has an `apps.py`, it must define
        exactly one. A second call with the same entries does nothing. Other threads wait until the first call is done.

        Raises `ConfigurationError` for invalid entries, names and labels, for duplicates, for models that were defined
        before with another label, and for other entries than those of the first call; `ModelError` for a name that
        several models have; `TypeError` unless *entries* is a list or tuple of strings; `RuntimeError` if an application
        calls it. Warns of receivers whose sender is a label that no model has. Errors of imports and of `ready()` are not
        changed. After an error nothing is set up, and `setup` can be called again; modules stay imported.
        """
        wanted = _checked(entries)
        with self._lock:
            if self._running:
                raise RuntimeError("setup() was called by an application that is being set up")
            if self.ready:
                if wanted != self._entries:
                    raise ConfigurationError(f"other applications are set up already: {brief(self._entries)}")
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
        self._register_labels(configs)
        self.apps_ready = True
        for package in packages:
            if _has_submodule(package, "models"):
                import_module(f"{package.__name__}.models")
        self.registry.prepare()
        self.models_ready = True
        for config in configs:
            config.ready()
        self._entries = entries
        self.ready = True
        for label, receiver in ModelSignal.all_waiting(self.registry):
            warnings.warn(
                f"no model is labelled {label!r}, to which {receiver} is connected"
                f"{nearest(label, self.registry.models)}",
                RuntimeWarning,
                stacklevel=_TO_SETUP_CALL,
            )

    def _register_labels(self, configs: list[AppConfig]) -> None:
        """Register the labels. Raises `ConfigurationError` if models were defined too early to have them."""
        registry = self.registry
        names = {label: name for name, label in registry.apps.items()}
        for config in configs:
            if config.name in names.values():
                raise ConfigurationError(f"the application {config.name!r} is listed twice")
            if (other := names.setdefault(config.label, config.name)) != config.name:
                raise ConfigurationError(
                    f"two applications are labelled {config.label!r}: {other!r} and {config.name!r}"
                )
        known = registry.known().items()
        before = {label: registry.label(model, None) for label, model in known}
        self.configs = {config.label: config for config in configs}
        registry.apps.update({config.name: config.label for config in configs})
        for label, model in known:
            if label == before[label] and label != (due := registry.label(model, None)):
                raise ConfigurationError(f"the model {due!r} was defined as {label!r}, before setup()")

    def _take_back(self) -> None:
        for config in self.configs.values():
            self.registry.apps.pop(config.name, None)
        self.configs = {}
        self.apps_ready = self.models_ready = self.ready = False


def _checked(entries: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    if not isinstance(entries, (list, tuple)):
        raise TypeError(f"setup() takes a list or tuple of applications, not {brief(entries)}")
    for entry in entries:
        if not isinstance(entry, str) or not _is_dotted_path(entry):
            kind = ConfigurationError if isinstance(entry, str) else TypeError
            raise kind(f"an application must be a dotted path, not {brief(entry)}")
    return tuple(entries)


def _read(entry: str) -> AppConfig:
    """Import and return the configuration of *entry*."""
    path, _, name = entry.rpartition(".")
    if path:
        module = import_module(path)
        found = getattr(module, name, None)
        if isinstance(found, type):
            if not issubclass(found, AppConfig):
                raise ConfigurationError(f"{entry!r} is a class, but not an AppConfig")
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
        raise ConfigurationError(f"{module.__name__!r} must define exactly one AppConfig; found: {names}")
    return found_here[0]()


def _configs_of(module: ModuleType) -> list[type[AppConfig]]:
    """Return the `AppConfig` classes defined, not imported, in *module*."""
    classes = dict.fromkeys(value for value in vars(module).values() if isinstance(value, type))
    return [each for each in classes if issubclass(each, AppConfig) and each.__module__ == module.__name__]


def _has_submodule(package: ModuleType, name: str) -> bool:
    """Whether *package* has a module *name*; it is not imported, since an error of it would hide its existence."""
    return hasattr(package, "__path__") and find_spec(f"{package.__name__}.{name}") is not None


def _is_dotted_path(path: str) -> bool:
    return all(map(str.isidentifier, path.split(".")))


default_apps = Apps(default_registry)
setup = default_apps.setup
