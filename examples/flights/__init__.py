"""Flights: a month of them, loaded through signals into two databases: `python -m examples.flights`."""
