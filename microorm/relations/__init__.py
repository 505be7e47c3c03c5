"""Related rows of an instance: reverse sides and many-to-many."""
