"""Program: one database, one application, and a few loans.

    python -m examples.app

Prints:
    ready: app
    models: app.Book, app.Loan, app.Reminder
    Ann and Bob read 'Dune': 0 copies are left
    no copy of 'Dune' is left for Cleo
    loans: Ann, Bob
    Ann brings it back: 1 copy is left
    reminders: order 'Dune'
"""

import microorm
from examples.app.models import Book, Loan, Reminder


def main() -> None:
    """Lend a book until no copy is left, and once more."""
    microorm.configure("sqlite://")
    microorm.setup(["examples.app"])  # the same as "examples.app.apps.LibraryConfig", the only one there
    microorm.create_all()
    print("models:", ", ".join(microorm.default_registry.models))

    dune = Book(title="Dune", copies=2).save()
    first = Loan(book_id=dune.id, reader="Ann").save()
    Loan(book_id=dune.id, reader="Bob").save()
    dune.refresh_from_db()
    print(f"Ann and Bob read {dune.title!r}: {dune.copies} copies are left")
    try:
        Loan(book_id=dune.id, reader="Cleo").save()
    except LookupError as error:
        print(error)
    print("loans:", ", ".join(loan.reader for loan in Loan.objects.order_by(Loan.id)))
    first.delete()
    dune.refresh_from_db()
    print(f"Ann brings it back: {dune.copies} copy is left")
    print("reminders:", ", ".join(reminder.text for reminder in Reminder.objects))
    microorm.close()


if __name__ == "__main__":
    main()
