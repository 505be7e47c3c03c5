"""One column of a model: its type, the check of its values, its default."""
