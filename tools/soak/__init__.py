"""Long runs that look for what shows only after a while; `make soak` starts them.

- `parts.py` says what a part is given, and what it returns.
- `web.py` asks the FastAPI example on PostgreSQL by many clients; `web_app.py` is that example with a page about its pools.
- `rounds.py` runs tests that choose by chance, again and again: oracles, cancellations, migrations that are killed.
- `outbox.py` kills producers and relays of the outbox on each database.
- `fixtures.py` dumps many rows, and loads them.
- `__main__.py` runs the parts that are named, and prints what they have found.
"""
