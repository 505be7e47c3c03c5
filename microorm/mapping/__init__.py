"""A class statement becomes a `Schema`, a `Table` and generated functions."""
