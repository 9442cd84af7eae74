"""Each module has one command of the command line, or a group of them; all of them take `--debug`."""

import click

# The edge of the program reads it from the arguments, before anything can fail.
DEBUG_OPTION = click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks.")
