"""Configuration: the one `AppConfig` of this package."""

from importlib import import_module

from microorm.apps import AppConfig


class LibraryConfig(AppConfig):
    """The application `app`, after the last part of its name; its models are `app.Book` and so on."""

    name = "examples.app"

    def ready(self) -> None:
        """Connect the receivers; the models of all applications are there by now."""
        import_module("examples.app.signals")
        print("ready:", self.label)
