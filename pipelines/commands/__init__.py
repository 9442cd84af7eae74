"""Each module has one command of the command line, or a group of them."""
