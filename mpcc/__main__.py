"""`python -m mpcc`."""

from mpcc.cli.app import main

if __name__ == "__main__":
    main()
