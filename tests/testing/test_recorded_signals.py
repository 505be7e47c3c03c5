"""Recording signals: what is recorded, and how a missing one is reported."""

import pytest

from microorm import Field, Model, Signal, muted, receiver
from microorm.signals import post_delete, post_save, pre_save
from microorm.testing import assert_signals, isolated_registry, record_signals

pytestmark = pytest.mark.backends("sqlite-memory")


@pytest.fixture
def Book(Base, registry):
    class Book(Base):
        title: Field[str]

    registry.create_all()
    return Book


@pytest.fixture
def Author(Base, registry):
    class Author(Base):
        name: Field[str]

    registry.create_all()
    return Author


def test_signals_are_recorded_in_order_with_their_arguments(Book, Author) -> None:
    with record_signals(post_save, pre_save, post_delete, sender=Book) as sent:
        book = Book(title="a").save()
        Author(name="b").save()
        book.delete()
    assert [each.signal for each in sent] == [pre_save, post_save, post_delete]
    assert (sent[1].sender, sent[1].arguments["instance"], sent[1].arguments["created"]) == (Book, book, True)
    assert [each.arguments["using"] for each in sent[:2]] == ["default", "default"]
    assert "post_save(sender=Book, instance=Book(" in repr(sent)
    Book(title="c").save()
    assert len(sent) == 3


def test_the_receivers_of_the_program_run_all_the_same(Book) -> None:
    ran: list[str] = []

    @receiver(post_save, sender=Book)
    def note(instance, **kwargs):
        ran.append(instance.title)

    with record_signals(post_save) as sent, muted(post_save, sender=Book):
        Book(title="a").save()
    with record_signals(post_save) as sent_all:
        Book(title="b").save()
    assert (ran, len(sent), len(sent_all)) == (["b"], 0, 1)
    assert post_save.has_listeners(Book)
    del note
    assert not post_save.has_listeners(Book)


def test_plain_signals_and_labels_work_too(Book) -> None:
    ping = Signal(("text",))
    with assert_signals(ping, times=1) as sent:
        ping.send("me", text="hello")
    assert dict(sent[0].arguments) == {"text": "hello"}
    with (
        pytest.raises(AssertionError, match=r"^<.*Signal object .*> was sent never, not at least once$"),
        assert_signals(ping),
    ):
        pass


@pytest.mark.parametrize(
    ("times", "saves", "message"),
    [
        (2, 1, r"^post_save of Book was sent once, not twice:\n1\. post_save\(sender=Book, instance=Book\("),
        (None, 0, r"^post_save of Book was sent never, not at least once$"),
        (0, 3, r"^post_save of Book was sent 3 times, not never:\n1\.(.|\n)*\n3\."),
    ],
)
def test_a_wrong_number_is_an_error_that_lists_them(Book, times, saves, message) -> None:
    with pytest.raises(AssertionError, match=message), assert_signals(post_save, sender=Book, times=times):
        for number in range(saves):
            Book(title=str(number)).save()
    assert not post_save.has_listeners(Book)


@pytest.mark.parametrize("times", [None, 1])
def test_the_right_number_is_no_error(Book, times) -> None:
    with assert_signals(post_save, sender=Book, times=times):
        Book(title="a").save()


def test_an_error_in_the_block_is_raised_unchanged(Book) -> None:
    with pytest.raises(ZeroDivisionError), assert_signals(post_save, sender=Book):
        raise ZeroDivisionError
    assert not post_save.has_listeners(Book)


def test_what_is_no_signal_is_refused() -> None:
    with pytest.raises(TypeError, match="at least one signal"), record_signals():
        pass
    with pytest.raises(TypeError, match="takes signals, not 'post_save'"), record_signals("post_save"):  # type: ignore[arg-type]
        pass


def test_a_registry_of_its_own_has_databases_of_its_own() -> None:
    with isolated_registry("default", "archive") as registry:

        class Book(Model, registry=registry, app="isolated"):
            title: Field[str]

        registry.create_all()
        Book(title="a").save(using="archive")
        assert (Book.objects.count(), Book.objects.using("archive").count()) == (0, 1)
        assert list(registry.models) == ["isolated.Book"]
    assert registry.databases.aliases == ()
