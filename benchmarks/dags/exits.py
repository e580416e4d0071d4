"""Ends with the exit code that it is told."""

import sys

sys.exit(int(sys.argv[1]))
