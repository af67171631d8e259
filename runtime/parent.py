"""A child process and the one that started it: the child ends with it."""

import os

PR_SET_PDEATHSIG = 1
PARENT = "TOCSIN_PARENT"


def end_with_parent(number: int) -> None:
    """Have this process get a signal when the one that started it dies; nothing without a supervisor.

    Call it first thing: who lost its parent before that ends at once. Source: prctl(2).
    """
    parent = int(os.environ.get(PARENT, "0"))
    if not parent:
        return
    import ctypes  # in children, not in who started them

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)
