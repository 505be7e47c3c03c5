"""The `AppConfig` of this package."""

from importlib import import_module

from microorm.apps import AppConfig


class FlightsConfig(AppConfig):
    """The application `flights`, labelled by the last part of its name. Its models are `flights.Flight` and so on."""

    name = "examples.flights"

    def ready(self) -> None:
        """Connect the receivers."""
        import_module("examples.flights.signals")
