"""Runnable examples: `python -m examples.flights` is the main one, and each of the others shows one idea."""
