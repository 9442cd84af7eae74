"""What the container of a step runs: `python3 -m components STEP EXECUTOR_INPUT`."""

import os
import sys

# kfp's own switch, read on import: without its compiler, whose dependencies the images leave out.
os.environ["_KFP_RUNTIME"] = "true"

from components import steps

if __name__ == "__main__":
    steps.execute(*sys.argv[1:])
