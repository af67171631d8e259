"""`python -m tocsin.supervisor` is the supervisor."""

import sys

from tocsin.supervisor.supervisor import main

if __name__ == "__main__":
    sys.exit(main())
