"""Configuration: the one `AppConfig` of this package."""

from importlib import import_module

from microorm.apps import AppConfig


class FlightsConfig(AppConfig):
    """The application `flights`, after the last part of its name; its models are `flights.Flight` and so on."""

    name = "examples.flights"

    def ready(self) -> None:
        """Connect the receivers."""
        import_module("examples.flights.signals")
