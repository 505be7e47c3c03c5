"""Signal dispatch: `Signal`, `receiver` and `muted`. Standard library only, usable without a model or a database."""

from microorm.dispatch.receivers import ReceiverLostWarning
from microorm.dispatch.signal import Signal, muted, receiver

__all__ = ["ReceiverLostWarning", "Signal", "muted", "receiver"]
