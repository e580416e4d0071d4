"""A CNI plugin, the last in the chain: no container of a pod starts before the rules for its addresses are in force.

The kubelet tells the API server of a pod's addresses when its containers run, up to a second too late. An address that
is given up is nobody's until another pod has it: there is nothing to do then, and :data:`FRONT` does without Python.
"""

import json
import os
import socket
import sys
import time

SOCKET = "/run/practicus-policy.sock"
PATIENCE = 10.0
TRY_AGAIN_LATER = 11
FRONT = """\
#!/bin/sh
test "$CNI_COMMAND" = DEL && exit
exec '{python}' -IS '{plugin}'
"""
"""What the container runtime starts; an interpreter's start is most of what the end of a pod's network would take."""
VERSIONS = ["0.3.0", "0.3.1", "0.4.0"]


def main() -> None:
    command = os.environ["CNI_COMMAND"]
    config = json.load(sys.stdin)
    if command == "VERSION":
        print(json.dumps({"cniVersion": VERSIONS[-1], "supportedVersions": VERSIONS}))
        return
    result = config.get("prevResult") or {}
    pod = dict(pair.split("=", 1) for pair in os.environ["CNI_ARGS"].split(";"))
    if command == "ADD":
        addresses = [each["address"].split("/")[0] for each in result["ips"]]
        wrong = ask({"uid": pod["K8S_POD_UID"], "addresses": addresses})
        if wrong:
            print(json.dumps({"cniVersion": config["cniVersion"], "code": TRY_AGAIN_LATER, "msg": wrong}))
            sys.exit(1)
        print(json.dumps(result))


def ask(question: dict[str, object]) -> str:
    """Returns what is wrong, or nothing."""
    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(PATIENCE)
                connection.connect(SOCKET)
                connection.sendall(json.dumps(question).encode() + b"\n")
                answer = connection.makefile().readline()
                return answer.strip() if answer else "the policy controller has ended"
        except (FileNotFoundError, ConnectionError, TimeoutError) as error:
            if time.monotonic() > give_up:
                return f"the policy controller does not answer: {error}"
            time.sleep(0.05)


if __name__ == "__main__":
    main()
