"""A bookshop with authors, books, tags and orders. Each report takes two statements, however many rows there are.

    python -m examples.bookshop

- `models.py` defines what is stored, and how the rows refer to each other.
- `stock.py` saves the rows, and `reports.py` prints what is asked about them.
- `__main__.py` is the program, and says what it prints.
"""
