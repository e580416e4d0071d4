"""A CNI plugin, the last in the chain: no container of a pod starts before the rules for its address are in force.

The kubelet tells the API server of a pod's address when its containers run, up to a second too late.
"""

import json
import os
import socket
import sys
import time

SOCKET = "/run/practicus-policy.sock"
PATIENCE = 10.0
TRY_AGAIN_LATER = 11
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
        wrong = ask({"command": command, "uid": pod["K8S_POD_UID"], "address": addresses[0]}, PATIENCE)
        if wrong:
            print(json.dumps({"cniVersion": config["cniVersion"], "code": TRY_AGAIN_LATER, "msg": wrong}))
            sys.exit(1)
        print(json.dumps(result))
    elif command == "DEL":
        ask({"command": command, "uid": pod["K8S_POD_UID"]}, 0)  # one that does not run has nothing to forget


def ask(question: dict[str, str], patience: float) -> str:
    """Returns what is wrong, or nothing."""
    give_up = time.monotonic() + patience
    while True:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(patience or 1)
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
