"""A bookshop with authors, books, tags and orders. Each report takes two statements, however many rows there are.

    python -m examples.bookshop

A path such as `Line.book.author.name` adds the joins it needs. `select_related` loads the row that a row refers to, in
the same statement. `prefetch_related` loads the rows that refer to a row, in one more statement. The program checks
how many statements it sends: a report that sent one per row (N+1) would end in an error.

Prints:
    Orders
      Ada     2 x The Dispossessed (Le Guin), 1 x Kindred (Butler)         38.50
      Grace   1 x Solaris (Lem)                                             9.00
      Ada     1 x The Left Hand of Darkness (Le Guin)                      11.00
      3 orders in 2 statements
    Best sellers
      Le Guin   3 sold, 34.00
      Butler    1 sold, 15.50
      Lem       1 sold, 9.00
      2 countries, 5 sold, 58.50 in total: 2 statements
    Tags
      classic: Solaris, The Dispossessed, The Left Hand of Darkness
      time travel: Kindred
      utopia: The Dispossessed
      3 tags in 2 statements
    Ada bought from Butler, Le Guin
    not sold: The Lathe of Heaven, which has no tag
    Solaris cannot be deleted while an order refers to it:
      Author cannot be deleted while 1 row of bookshop.Line (key 3) refers to Book by 'book'
    deleted with Le Guin: 3 books and 3 of their tags
"""

import microorm
from examples.bookshop.reports import best_sellers, deletions, orders, questions, tags
from examples.bookshop.stock import fill

if __name__ == "__main__":
    microorm.configure("sqlite://")
    microorm.create_all()
    fill()
    orders()
    best_sellers()
    tags()
    questions()
    deletions()
    microorm.close()
