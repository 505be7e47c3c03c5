"""An application: a package of models and receivers that you set up by its name.

    python -m examples.app

- `apps.py` names the application, and imports its receivers once all models are loaded.
- `models.py` defines what is stored.
- `signals.py` defines what happens when a row is saved or deleted.
- `__main__.py` configures a database, sets up the application and uses it.
"""
