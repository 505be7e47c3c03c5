"""Flights: an application over two databases, whose tables the migrations of this repository make.

    python -m examples.flights

- `models.py` says what is stored, `routers.py` in which database, `apps.py` what the application is called.
- `signals.py` says what happens when a row is saved, `loading.py` reads the files and saves them.
- `totals.py` counts everything twice, `questions.py` asks ten questions; `report.py` and `answers.py` print.
- `__main__.py` is the program.
"""
