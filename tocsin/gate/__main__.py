"""`python -m tocsin.gate` is the gate process."""

from tocsin.gate.gate import main

if __name__ == "__main__":
    main()
