"""`python -m tocsin.node` is the node process."""

from tocsin.node.node import main

if __name__ == "__main__":
    main()
