"""Wrong tokens cost time: more with each one from an address, and by a rate from all together."""

import hashlib
import ipaddress
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

FREE = 5  # wrong tokens of an address that cost nothing: people mistype
MAX_WAIT = 300.0  # seconds
BURST, PER_SECOND = 30, 1.0  # wrong tokens from all addresses that were never right
MAX_ADDRESSES = 10_000
_REMEMBERED = 8  # wrong tokens of an address: a browser sends an old cookie with every picture


@dataclass(slots=True)
class _Record:
    count: int = 0
    until: float = 0.0
    right: bool = False
    wrong: deque[bytes] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))


class TokenGuesses:
    """The wrong tokens by address (of IPv6 by its network of 64 bits), used by one thread.

    After `FREE` different ones an address waits a second, and twice as long after each further one.
    Addresses that have never been right share a rate besides, so that many of them together guess
    no faster; those that have been right are not kept waiting by others.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._records: OrderedDict[str, _Record] = OrderedDict()
        self._left, self._counted_at = float(BURST), clock()

    def wait(self, address: str, guess: str) -> float:
        """Return the seconds after which a token may be tried, 0 for at once; one that is known to
        be wrong may always be.
        """
        now, record = self._clock(), self._records.get(_network(address))
        if record is not None and _digest(guess) in record.wrong:
            return 0.0
        if record is not None and record.until > now:
            return record.until - now
        if record is not None and record.right:
            return 0.0
        self._left = min(float(BURST), self._left + (now - self._counted_at) * PER_SECOND)
        self._counted_at = now
        return 0.0 if self._left >= 1 else (1 - self._left) / PER_SECOND

    def add_wrong(self, address: str, guess: str) -> None:
        """Count a wrong token, each of an address once."""
        record, digest = self._record(address), _digest(guess)
        if digest in record.wrong:
            return
        record.wrong.append(digest)
        record.count += 1
        if not record.right:
            self._left = max(0.0, self._left - 1)
        over = record.count - FREE
        if over >= 0:
            record.until = self._clock() + min(MAX_WAIT, 2.0 ** min(over, 16))

    def add_right(self, address: str) -> None:
        """Note that an address knows the token."""
        record = self._record(address)
        record.right, record.count = True, 0

    def _record(self, address: str) -> _Record:
        network = _network(address)
        record = self._records.setdefault(network, _Record())
        self._records.move_to_end(network)
        if len(self._records) > MAX_ADDRESSES:
            self._records.popitem(last=False)
        return record


def _digest(guess: str) -> bytes:
    return hashlib.blake2b(guess.encode("utf-8", "surrogateescape"), digest_size=8).digest()


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(parsed) if parsed.version == 4 else str(ipaddress.ip_network((parsed, 64), False))
