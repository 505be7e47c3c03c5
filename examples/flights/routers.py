"""The router: decides which of the two databases a model is stored in."""

from typing import Any

from microorm import Model, Router


class SecondDatabase(Router):
    """Send the weather and the audit trail to the alias `second`, and everything else to `default`."""

    models = frozenset({"flights.Weather", "flights.Audit"})

    def alias_of(self, label: str) -> str:
        """Return the alias of the model with this label."""
        return "second" if label in self.models else "default"

    def db_for_read(self, model: type[Model[Any]], **hints: Any) -> str:
        return self.alias_of(model.__schema__.label)

    def db_for_write(self, model: type[Model[Any]], **hints: Any) -> str:
        return self.alias_of(model.__schema__.label)

    def allow_migrate(
        self, alias: str, label: str, model: type[Model[Any]] | None = None, **hints: Any
    ) -> bool:
        return alias == self.alias_of(label)
