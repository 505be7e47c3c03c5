"""A service with Flask: synchronous endpoints, each request in a thread of the server.

    pip install . flask
    flask --app examples.flask_app.main run

- `models.py` defines what is stored, and a receiver.
- `main.py` makes the application, and has its endpoints.

It reads the environment: `DATABASE_URL`, by default a file `books.db`.
"""
