"""The commands and their arguments. Airflow reads this for every ``airflow`` command, so it imports nothing of ours."""

from __future__ import annotations

from typing import Any

from airflow.cli.cli_config import (
    ARG_BUNDLE_NAME,
    ARG_DAG_ID,
    ARG_MAP_INDEX,
    ARG_OUTPUT,
    ARG_TASK_ID,
    ARG_VERBOSE,
    ARG_YES,
    ActionCommand,
    Arg,
    GroupCommand,
    lazy_load_command,
)


def _arg(*flags: str, **options: Any) -> Arg:
    return Arg(flags, **options)  # type: ignore[no-untyped-call]


NAME = _arg("name", help="The cluster's name, as `list`, the task's log and its XCom `cluster` say it")
CONN_ID = _arg("--conn-id", default="practicus_default", help="The connection that says where clusters run")
NAMESPACE = _arg("--namespace", help="Of the pods on Kubernetes, instead of the connection's")
PLACE = (CONN_ID, NAMESPACE)
DATE = _arg(
    "--logical-date",
    help="Logical date or run id to render templates for; without it those of a run that was never started",
)
SERVER = _arg("--server", action="store_true", help="Ask the API server too: would it take them, now and here?")
ROLE = _arg("--role", help="Only the replicas of this role, such as driver or worker")
SUBJECT = _arg("--service-account", default="airflow:airflow-worker", help="NAMESPACE:NAME of who gets the rights")
ADMISSION = _arg(
    "--admission",
    action="store_true",
    help="Print the policy too by which replicas that start pods start their own cluster's alone",
)
DEFAULT_DENY = _arg(
    "--default-deny",
    action="store_true",
    help="Print a NetworkPolicy too by which no pod of the namespace reaches anything that no other policy allows",
)
DRY_RUN = _arg("--dry-run", action="store_true", help="Say what would be removed, and remove nothing")


def get_commands() -> list[GroupCommand]:
    """Airflow's contract for the provider info's key ``cli``."""
    return [
        GroupCommand(
            name="practicus",
            help="Clusters of distributed jobs",
            subcommands=(
                _command(
                    "plan",
                    "Print what a task would send",
                    ARG_DAG_ID,
                    ARG_TASK_ID,
                    DATE,
                    ARG_MAP_INDEX,
                    SERVER,
                    ARG_BUNDLE_NAME,
                ),
                _command(
                    "rbac",
                    "Print the Role that the connection's user needs in the namespace",
                    *(*PLACE, SUBJECT, ADMISSION, DEFAULT_DENY),
                ),
                _command("list", "List the clusters that are there", *PLACE, ARG_OUTPUT),
                _command("gc", "Remove the clusters whose task is over", *PLACE, DRY_RUN, ARG_YES),
                _command("logs", "Print what a cluster's replicas have written", NAME, ROLE, *PLACE),
                _command("delete", "Remove a cluster", NAME, *PLACE, ARG_YES),
            ),
        )
    ]


def _command(name: str, what: str, *args: Arg) -> ActionCommand:
    function = lazy_load_command(f"practicus_provider.cli.commands.{name}_")
    return ActionCommand(name=name, help=what, func=function, args=(*args, ARG_VERBOSE))
