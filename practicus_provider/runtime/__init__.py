"""What runs inside replicas. Nothing here imports the rest of this package."""

from pathlib import Path

FOLDER = Path(__file__).parent
"""Belongs on a replica's ``PYTHONPATH``; holds the package ``practicus_runtime``."""
START = FOLDER / "practicus_runtime" / "start.py"
"""A replica's first process, where that is one of this machine."""
