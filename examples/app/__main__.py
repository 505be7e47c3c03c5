"""The program: one database, one application, and a few loans.

    python -m examples.app

Prints:
    ready: app
    models: app.Book, app.Loan, app.Reminder
    Ann and Bob borrow 'Dune': 0 copies are left
    no copy of 'Dune' is left for Cleo
    loans: Ann, Bob
    Ann returns it: 1 copy is left
    reminders: order 'Dune'
"""

import microorm
from examples.app.models import Book, Loan, Reminder


def main() -> None:
    """Lend all copies of a book, and try to lend one more."""
    microorm.configure("sqlite://")
    microorm.setup(["examples.app"])  # or "examples.app.apps.LibraryConfig", its only AppConfig
    microorm.create_all()
    print("models:", ", ".join(microorm.default_registry.models))

    dune = Book(title="Dune", copies=2).save()
    first = Loan(book_id=dune.id, reader="Ann").save()
    Loan(book_id=dune.id, reader="Bob").save()
    dune.refresh_from_db()
    print(f"Ann and Bob borrow {dune.title!r}: {dune.copies} copies are left")
    try:
        Loan(book_id=dune.id, reader="Cleo").save()
    except LookupError as error:
        print(error)
    print("loans:", ", ".join(loan.reader for loan in Loan.objects.order_by(Loan.id)))
    first.delete()
    dune.refresh_from_db()
    print(f"Ann returns it: {dune.copies} copy is left")
    print("reminders:", ", ".join(reminder.text for reminder in Reminder.objects))
    microorm.close()


if __name__ == "__main__":
    main()
