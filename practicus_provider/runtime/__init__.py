"""What runs inside replicas. Nothing here imports the rest of this package."""

from pathlib import Path

FOLDER = Path(__file__).parent
"""Belongs on a replica's ``PYTHONPATH``; holds the package ``practicus_runtime``."""
LAUNCHER = FOLDER / "practicus_runtime" / "launcher.py"
