"""`python -m tocsin.watchdog` is the watchdog, or a child of it that posts."""

import sys

from tocsin.watchdog.watchdog import main

if __name__ == "__main__":
    sys.exit(main())
