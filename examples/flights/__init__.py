"""Flights: an application with two databases. The migrations of this repository create its tables.

    python -m examples.flights

- `models.py` defines the tables, `routers.py` the database of each, `apps.py` the application.
- `signals.py` defines what happens when a row is saved. `loading.py` reads the CSV files and saves their rows.
- `totals.py` counts the rows in the files and in the databases. `questions.py` asks ten questions about the flights.
- `report.py` and `answers.py` print the results.
- `__main__.py` is the program.
"""
