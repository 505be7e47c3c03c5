"""Orders, and the charges that a receiver books for them."""

from microorm import Field, ForeignKey, Model, field, foreign_key


class Order(Model):
    """What a customer has bought."""

    customer: Field[str]
    cents: Field[int]


class Charge(Model):
    """One charge for each order, whatever happens."""

    order: ForeignKey[Order] = foreign_key(on_delete="cascade")
    cents: Field[int] = field()
