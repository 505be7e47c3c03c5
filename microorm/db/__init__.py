"""Aliases, connections, transactions and routing."""
