"""Command line: `microorm`, one file per command that reads its arguments, calls one function and prints."""

from microorm.cli.program import main

__all__ = ["main"]
