"""The ends of a query that give columns and numbers, on every database (DESIGN 6)."""


def test_count_and_exists_see_what_all_would_give(Book, shelf, wire):
    """DESIGN 6: limits and slices included; one statement, no row is fetched."""
    with wire.record() as sent:
        assert [shelf.count(), shelf.filter(price=None).count(), shelf.filter(Book.pages > 9).count()] == [
            5,
            2,
            0,
        ]
        assert [shelf[1:3].count(), shelf[4:].count(), shelf.limit(2).count(), shelf.offset(9).count()] == [
            2,
            1,
            2,
            0,
        ]
        assert shelf.distinct().count() == 5
        assert [shelf.exists(), shelf.filter(title="z").exists(), shelf.exclude(price=None).exists()] == [
            True,
            False,
            True,
        ]
        assert [shelf[4:].exists(), shelf[5:].exists(), shelf.limit(0).exists()] == [True, False, False]
    assert len(sent) == 14
    assert type(shelf.exists()) is bool
    assert type(shelf.count()) is int
