"""The command line, one file for each group of commands; app.py puts them together."""

from mpcc.cli.app import main

__all__ = ["main"]
