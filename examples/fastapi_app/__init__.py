"""A service with FastAPI: asynchronous endpoints, response models, a replica to read from, and signals.

    pip install '.[async]' fastapi uvicorn
    uvicorn examples.fastapi_app.main:app

- `models.py` defines what is stored, and `schemas.py` what a client sends and gets.
- `routers.py` sends reads to the replica. `signals.py` writes news after a commit.
- `main.py` is the application: how it starts and ends, and its endpoints.

It reads the environment: `DATABASE_URL`, by default a file `books.db`, and `REPLICA_URL`, by default the same.
"""
