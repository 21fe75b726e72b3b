"""The leash on which a child process runs: a process of its own, with this file as its program.

It passes signals on to the child, waits for it, and says what it took. When the parent is gone,
however it ended, the child is told to end. A process is charged with the memory of the one that
started it until it has become another program, so this one is small: it knows nothing of tipl.

Its arguments: the parent's id, a descriptor for what the child took (-1: none), and the command.
"""

import contextlib
import os
import resource
import signal
import sys
import time

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_GRACE = 10  # seconds that the child has to end by itself when nobody is left to wait for it


def _end_with_parent(parent: int) -> None:
    """Lets the kernel send SIGTERM when the parent ends; where it cannot, somebody has to look."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG of <linux/prctl.h>
    if os.getppid() != parent:  # it was quicker
        os.kill(os.getpid(), signal.SIGTERM)


def _hold(parent: int, told: int, command: list[str]) -> int:
    """Runs the command, passes signals on to it, and ends with its exit status."""
    passed_on: set[int] = set()

    def pass_on(number: int, frame: object = None) -> None:
        if number not in passed_on:  # a terminal tells all of its processes
            passed_on.add(number)
            os.kill(child, number)
        if os.getppid() != parent:
            signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
            signal.alarm(_GRACE)

    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    leash_id, child = os.getpid(), os.fork()
    if child == 0:
        if told >= 0:
            os.set_inheritable(told, False)
        if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        _end_with_parent(leash_id)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        try:
            os.execv(command[0], command)
        finally:
            os._exit(127)
    for number in ENDING:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, pass_on)
    _end_with_parent(parent)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    looking = 0 if sys.platform == "linux" else os.WNOHANG
    while True:
        ended, status, used = os.wait4(child, looking)
        if ended:
            break
        if os.getppid() != parent:
            pass_on(signal.SIGTERM)
        time.sleep(0.2)
    code = os.waitstatus_to_exitcode(status)
    if told >= 0:
        took = f"[{code}, {used.ru_utime + used.ru_stime}, {used.ru_maxrss}]"
        with contextlib.suppress(OSError):  # nobody may be left to read it
            os.write(told, took.encode())
    if code < 0:  # it ends as the child has, but leaves no second image of its memory
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if code != -signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


if __name__ == "__main__":
    raise SystemExit(_hold(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
