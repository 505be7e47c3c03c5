"""Reflection: typed models for the tables and views of an existing database, as the source of a module."""

from microorm.reflection.source import models_source

__all__ = ["models_source"]
