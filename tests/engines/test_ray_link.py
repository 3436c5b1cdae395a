"""The driver is played by a few lines, which need no Ray."""

from __future__ import annotations

import os
import queue
from collections.abc import Callable
from contextlib import AbstractContextManager

import psutil
import pytest

from longvu_cli.engines import ray_link
from longvu_cli.engines.events import Event, Noticed, Unreachable
from longvu_cli.engines.ray_link import RayLink, linked
from longvu_cli.engines.ray_messages import Dismiss, Join
from longvu_cli.errors import ServerUnreachable

_BEGINNING = """
import os, subprocess, sys, time
from multiprocessing.connection import Connection
from longvu_cli.engines.events import Noticed
from longvu_cli.engines.ray_messages import CannotConnect, Connected, Said
connection = Connection(int(sys.argv[1]))
place = connection.recv()
"""
PATIENCE_S = 60.0

Play = Callable[[str], AbstractContextManager[RayLink]]


class Heard:
    """Keeps what is heard."""

    def __init__(self) -> None:
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def hear(self, event: Event) -> None:
        self.events.put(event)

    def next(self) -> Event:
        return self.events.get(timeout=PATIENCE_S)


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Play:
    """Links with a driver that does as it is written, once it was told where to go."""

    def play_part(part: str, patience_s: float = PATIENCE_S) -> AbstractContextManager[RayLink]:
        monkeypatch.setattr(ray_link, "_PROGRAM", _BEGINNING + part)
        return linked(Join("there:1"), os.environ, "the cluster", patience_s)

    return play_part


def test_each_worker_hears_its_own_and_is_ordered_by_its_number(play: Play) -> None:
    part = """
connection.send(Connected(3))
for _ in range(2):
    number = connection.recv().worker
    connection.send(Said(number, Noticed(f"{number} of {place.address}")))
connection.recv()
"""
    one, two = Heard(), Heard()
    with play(part) as link:
        assert (link.gpus, link.enrol(one), link.enrol(two)) == (3, 0, 1)
        link.order(Dismiss(1))
        assert two.next() == Noticed("1 of there:1")
        link.order(Dismiss(0))
        assert one.next() == Noticed("0 of there:1")


def test_the_end_of_the_driver_is_heard_by_all_after_what_was_said(play: Play) -> None:
    part = """
connection.send(Connected(0))
connection.send(Said(connection.recv().worker, Noticed("last")))
print("its last words", flush=True)
os.kill(os.getpid(), 9)
"""
    one, two, late = Heard(), Heard(), Heard()
    with play(part) as link:
        link.enrol(one)
        link.enrol(two)
        link.order(Dismiss(0))
        assert one.next() == Noticed("last")
        broken = one.next()
        assert two.next() is broken
        link.enrol(late)
        assert late.next() is broken
        link.order(Dismiss(2))  # is no error
    assert isinstance(broken, Unreachable)
    assert isinstance(broken.error, ServerUnreachable)
    assert (broken.error.message, broken.trace) == ("the cluster was lost", "its last words\n")


@pytest.mark.parametrize(
    ("part", "hint"),
    [
        ("connection.send(CannotConnect('closed')); time.sleep(600)", "closed"),
        ("print('first'); print('no such place', file=sys.stderr); sys.exit(1)", "no such place"),
        ("os.kill(os.getpid(), 9)", ""),
    ],
)
def test_a_driver_that_cannot_connect_is_told(play: Play, part: str, hint: str) -> None:
    with pytest.raises(ServerUnreachable, match="there is no connection to the cluster") as raised, play(part):
        pass
    assert raised.value.hint == hint


def test_one_that_does_not_say_whether_it_has_connected_is_not_waited_for(
    play: Callable[[str, float], AbstractContextManager[RayLink]],
) -> None:
    with pytest.raises(ServerUnreachable, match="did not answer within"), play("time.sleep(600)", 0.1):
        pass


def test_what_it_has_started_does_not_outlive_the_block(play: Play) -> None:
    part = """
own = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
connection.send(Connected(own.pid))
time.sleep(600)
"""
    with pytest.raises(KeyboardInterrupt), play(part) as link:
        started = [psutil.Process(link.gpus), psutil.Process(link.gpus).parent()]
        raise KeyboardInterrupt
    assert psutil.wait_procs(started, timeout=PATIENCE_S)[1] == []
