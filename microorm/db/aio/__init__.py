"""Async: the methods that can be awaited, and the engines of event loops."""
