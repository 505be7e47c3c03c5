"""Engines: how the database of an alias is reached; URLs, idle connections, limits, listeners."""
