"""Orders that are charged and mailed by durable receivers, although a relay crashes in between.

    python -m examples.outbox

- `models.py` defines what is stored, and `receivers.py` what follows a committed order.
- `__main__.py` is the program: its first relay crashes after a mail, and a second one finishes.
- `with_faststream.py` and `with_celery.py` are programs, too. They have the receivers called by workers behind a broker;
  `by_broker.py` is what both have in common.
"""
