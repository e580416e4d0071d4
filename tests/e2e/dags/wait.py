"""Says that it started, waits for a file, and returns how many lines the starts' file has."""

import os
import sys
import time

import practicus_runtime

folder = sys.argv[1]
with open(os.path.join(folder, "starts"), "a") as starts:
    starts.write(f"{os.getpid()}\n")
print("started", flush=True)
for number in range(3):
    print("line", number, flush=True)
while not os.path.exists(os.path.join(folder, "go")):
    time.sleep(0.05)
practicus_runtime.progress(1, "let go")
with open(os.path.join(folder, "starts")) as starts:
    practicus_runtime.set_result(starts.read().split())
