"""The `AppConfig` of this package."""

from importlib import import_module

from microorm.apps import AppConfig


class LibraryConfig(AppConfig):
    """The application `app`, labelled by the last part of its name. Its models are `app.Book` and so on."""

    name = "examples.app"

    def ready(self) -> None:
        """Connect the receivers. By now the models of all applications are loaded."""
        import_module("examples.app.signals")
        print("ready:", self.label)
