"""`python -m tocsin.desk` is the desk process."""

from tocsin.desk.desk import main

if __name__ == "__main__":
    main()
