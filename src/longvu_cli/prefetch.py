"""Work ahead in a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from contextlib import ExitStack, closing
from typing import TypeVar

Item = TypeVar("Item")

# How long a reader that leaves waits for the item in work. Whoever owns what is iterated closes it next, which ends it.
_FAREWELL_S = 0.3
# How often a full queue looks whether anybody still reads it, in seconds.
_POLL_S = 0.1


class _End:
    """The iterable is exhausted, or raised ``error``."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def prefetched(items: Iterable[Item], depth: int) -> Generator[Item, None, None]:
    """Iterate in another thread, at most ``depth`` items ahead of the reader.

    Errors of the iterable are raised here, in their place. Closing the generator ends the thread and closes the
    iterable; an item that takes long is not waited for.

    Args:
        depth: items that wait at most; bounds the memory.
    """
    waiting: queue.Queue[Item | _End] = queue.Queue(maxsize=depth)
    unread = threading.Event()

    def put(item: Item | _End) -> bool:
        while not unread.is_set():
            try:
                waiting.put(item, timeout=_POLL_S)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        error: BaseException | None = None
        try:
            with ExitStack() as stack:
                if isinstance(items, Generator):
                    stack.enter_context(closing(items))
                for item in items:
                    if not put(item):
                        return
        except BaseException as raised:  # noqa: BLE001  it is raised again where the items are read
            error = raised
        put(_End(error))

    thread = threading.Thread(target=work, name="longvu-prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item = waiting.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item
    finally:
        unread.set()
        thread.join(_FAREWELL_S)
