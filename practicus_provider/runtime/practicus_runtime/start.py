"""First process of a replica on this machine: ``python -I -S start.py LAUNCH.json``. It becomes the launcher."""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module

if __name__ == "__main__":
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # after Python's own modules
    with open(sys.argv[1]) as file:
        launch = import_module("practicus_runtime.contract").ReplicaLaunch.from_json(json.load(file))
    import_module("practicus_runtime.launcher").main(launch)
