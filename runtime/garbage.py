"""Python's garbage collector, kept out of the way of ticks.

A collection looks at every object since the last one: within a tick of a hundred alarms that took up to
100 ms. Of what a tick makes next to nothing is part of a cycle, so what is left of it when nobody waits is
looked at once and then left alone; all of it again only seldom.
"""

import gc
import itertools

COLLECT_AFTER = 100_000  # objects made and not freed, some 10 MB: then also within a tick
TIDY_AFTER = 5_000  # in `tidy`
WHOLE_EVERY = 1_000  # of `tidy`: a night with a tick a minute

_tidied = itertools.count(1)


def calm() -> None:
    """Leave alone what is there now, and look seldom at what comes."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 20)


def tidy() -> None:
    """Look at what was made since the last time, where that is much. To be called when nobody waits."""
    if gc.get_count()[0] < TIDY_AFTER:
        return
    if next(_tidied) % WHOLE_EVERY == 0:
        gc.unfreeze()
        gc.collect()
    else:
        gc.collect(0)
    gc.freeze()
