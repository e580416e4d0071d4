"""Lasts for as many seconds as it is told, says so each second, and returns the name of the machine that it ran on."""

import socket
import sys
import time

import practicus_runtime

for second in range(int(sys.argv[1])):
    print("second", second, flush=True)
    time.sleep(1)
practicus_runtime.set_result({"host": socket.gethostname()})
