"""`python -m mpcc`."""

from mpcc.cli import main

if __name__ == "__main__":
    main()
