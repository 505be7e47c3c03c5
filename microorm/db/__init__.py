"""Databases: aliases, connections, transactions and routing."""
