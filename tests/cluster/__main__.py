"""The cluster's commands: ``python -m tests.cluster up``."""

from __future__ import annotations

import argparse
import sys

from tests.cluster import images
from tests.cluster.cluster import Cluster
from tests.cluster.errors import ClusterError
from tests.cluster.layout import Layout, families


def main() -> int:
    """Do what the command line says."""
    arguments = _parser().parse_args()
    try:
        cluster = Cluster(Layout.default())
        match arguments.command:
            case "up":
                of = families(arguments.families) if arguments.families else None
                cluster.up(arguments.nodes, arguments.simulated_nodes, of)
                print(f"export KUBECONFIG={cluster.layout.kubeconfig}")
            case "down":
                cluster.down()
            case "status":
                return _print_status(cluster)
            case "kubeconfig":
                print(cluster.layout.kubeconfig)
            case "stock":
                cluster.stock()
            case "load":
                cluster.load(arguments.image)
            case "kill":
                cluster.machine(arguments.machine).kill()
            case "exec":
                return cluster.machine(arguments.machine).call(*arguments.argv)
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _print_status(cluster: Cluster) -> int:
    """Say what runs; the exit status tells whether all of it does."""
    machines = cluster.machines
    ended = 0
    for machine in machines:
        processes = {name: process.pid if process.alive else None for name, process in machine.processes.items()}
        ended += list(processes.values()).count(None) + (machine.init is None)
        print(f"{machine.name:14} {f'runs as {machine.init.pid}' if machine.init else 'has ended'}")
        for name, pid in processes.items():
            print(f"  {name:24} {f'runs as {pid}' if pid else f'has ended: {machine.log(name)}'}")
    if not machines:
        print(f"no cluster in {cluster.layout.root}")
        return 1
    print(f"kubeconfig     {cluster.layout.kubeconfig}\naudit log      {cluster.layout.audit_log}")
    return 1 if ended else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description="A Kubernetes cluster for the tests.")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="boot it, or repair it")
    up.add_argument("--nodes", type=int, help="how many (default: as it is; 2 for a new one)")
    up.add_argument(
        "--simulated-nodes", type=int, metavar="N", help="that only pretend to run pods (default: as it is; none)"
    )
    up.add_argument(
        "--families", metavar="ipv6,ipv4", help="of its addresses, the primary one first (default: as it is; ipv4)"
    )
    commands.add_parser("down", help="end it, and leave nothing")
    commands.add_parser("status", help="show its machines and their components")
    commands.add_parser("kubeconfig", help="print where its kubeconfig is")
    commands.add_parser("stock", help="build all images; nodes that are new then start with them")
    load = commands.add_parser("load", help="give its nodes an image, which is built first if it is one of ours")
    load.add_argument("image", help=f"an archive's file, or one of {', '.join(images.names())}")
    kill = commands.add_parser("kill", help="cut one of its machines off, as without power; `up` brings it back")
    kill.add_argument("machine")
    execute = commands.add_parser("exec", help="run a command on one of its machines")
    execute.add_argument("machine")
    execute.add_argument("argv", nargs="+")
    return parser


if __name__ == "__main__":
    sys.exit(main())
