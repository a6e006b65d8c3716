#!/usr/bin/python3
"""python: an interpreter with an open file, a thread, a generator in mid-run and some objects.

victim.h says how a victim is asked.
"""

import hashlib
import os
import signal
import sys
import tempfile
import threading


def say(line):
    path = os.environ.get("VICTIM_OUTPUT", "/dev/stdout")
    with open(path, "a", encoding="ascii") as out:
        out.write(line + "\n")


def words():
    """An endless sequence that knows where it is."""
    digest = b"victim"
    while True:
        digest = hashlib.sha256(digest).digest()
        yield digest


def main():
    sabotage = sys.argv[1:] == ["--sabotage"]
    # Asked for by sigwait alone, in every thread.
    asking = {signal.SIGUSR1, signal.SIGUSR2}
    signal.pthread_sigmask(signal.SIG_BLOCK, asking)

    sequence = words()
    seen = [next(sequence) for _ in range(1000)]
    table = {word.hex(): position for position, word in enumerate(seen)}
    file = tempfile.TemporaryFile(dir=".")
    file.write(b"".join(seen))
    file.flush()
    stop = threading.Event()
    answers = []
    thread = threading.Thread(target=lambda: answers.append(stop.wait()))
    thread.start()

    say("ready")
    rounds = 0
    while signal.sigwait(asking) == signal.SIGUSR2:
        rounds += 1
        say(f"round {rounds}")
    if sabotage:
        next(sequence)

    failures = []
    expected = words()
    again = [next(expected) for _ in range(1000)]
    if seen != again or [table[word.hex()] for word in again] != list(range(1000)):
        failures.append("the objects have changed")
    if next(sequence) != next(expected):
        failures.append("the generator goes on elsewhere")
    if file.tell() != 32 * len(seen) or file.seek(0) != 0 or file.read() != b"".join(again):
        failures.append("the file has changed")
    if not thread.is_alive():
        failures.append("the thread has ended")
    stop.set()
    thread.join()
    if answers != [True]:
        failures.append("the thread was not woken")
    for failure in failures:
        say("FAIL " + failure)
    if not failures:
        say("ok")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
