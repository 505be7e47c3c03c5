"""Application: a package of models and receivers, set up by its name.

    python -m examples.app

- `apps.py` says what the application is called, and imports its receivers when all models are there.
- `models.py` says what is stored.
- `signals.py` says what happens when it is.
- `__main__.py` configures a database, sets up the application and uses it.
"""
