"""`python -m tipl` is the command `tipl`."""

from tipl.cli import main

if __name__ == "__main__":
    main()
