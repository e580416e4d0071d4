"""What Airflow reads about this package: found by the entry point ``apache_airflow_provider``."""

from __future__ import annotations

from typing import Any

from practicus_provider import __version__

NAME = "Practicus"
PACKAGE = "airflow-provider-practicus"
CLUSTERS = "Kubernetes"
"""What is of no framework is of where clusters run."""


def get_provider_info() -> dict[str, Any]:
    """The modules, the connection type and its form. Imports nothing: Airflow calls this whenever it starts.

    Airflow itself reads what ``provider_info.schema.json`` names. ``versions``, ``lifecycle`` and the integrations'
    pages are what registries of providers show, as ``provider.yaml.schema.json`` has them.
    """
    return {
        "package-name": PACKAGE,
        "name": NAME,
        "description": "Distributed jobs: one task, one isolated, temporary cluster.",
        "versions": [__version__],
        "lifecycle": "incubation",
        "integrations": [
            _integration(CLUSTERS, "https://kubernetes.io/docs/", "software", "kubernetes", "operations"),
            _integration("Apache Spark", "https://spark.apache.org/docs/latest/", "apache", "spark"),
            _integration("Dask", "https://docs.dask.org/", "software", "dask"),
            _integration("PyTorch", "https://docs.pytorch.org/docs/stable/", "software", "torch", "training"),
            _integration("DeepSpeed", "https://deepspeed.readthedocs.io/", "software", "deepspeed"),
            _integration("FairScale", "https://fairscale.readthedocs.io/", "software", "fairscale"),
            _integration("Horovod", "https://horovod.readthedocs.io/", "software", "horovod"),
        ],
        "operators": [
            _modules(CLUSTERS, "operators.job", "operators.cluster"),
            _modules("Apache Spark", "operators.spark"),
            _modules("Dask", "operators.dask"),
            _modules("PyTorch", "operators.torch"),
            _modules("DeepSpeed", "operators.deepspeed"),
            _modules("FairScale", "operators.fairscale"),
            _modules("Horovod", "operators.horovod"),
        ],
        "sensors": [_modules(CLUSTERS, "sensors.job")],
        "hooks": [_modules(CLUSTERS, "hooks.practicus")],
        "triggers": [_modules(CLUSTERS, "triggers.job")],
        "task-decorators": [
            {"name": "practicus", "class-name": "practicus_provider.decorators.practicus.practicus_task"}
        ],
        "cli": ["practicus_provider.cli.definition.get_commands"],
        "extra-links": [
            f"practicus_provider.links.{name}"
            for name in (
                *("PracticusClusterLink", "PracticusLogsLink", "PracticusDashboardLink"),
                *("SparkUILink", "SparkHistoryLink", "DaskDashboardLink"),
            )
        ],
        "config": {
            "practicus": {
                "description": "Of clusters, for all connections.",
                "options": {
                    "trust_kubeconfigs": {
                        "description": (
                            "Whether the API server runs the programs that a connection's kubeconfig names (``exec``, "
                            "``auth-provider``), and reads the files that one with its content names. Whoever may edit "
                            "connections can then run programs there. Workers and triggerers always do."
                        ),
                        "version_added": __version__,
                        "type": "boolean",
                        "example": None,
                        "default": "False",
                    }
                },
            }
        },
        "connection-types": [
            {
                "connection-type": "practicus",
                "hook-class-name": "practicus_provider.hooks.practicus.PracticusHook",
                "hook-name": NAME,
                "conn-fields": {
                    "backend": {
                        "label": "Backend",
                        "description": "Where clusters run. local: as processes of the machine that runs the task.",
                        "schema": {"type": "string", "enum": ["kubernetes", "local"], "default": "kubernetes"},
                    },
                    "namespace": {
                        "label": "Namespace",
                        "description": "Of the pods on Kubernetes; empty: default.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "image": {
                        "label": "Image",
                        "description": "Of the pods of jobs that name none.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "images": {
                        "label": "Images of adapters",
                        "description": 'Before the image above, such as {"spark": "registry/spark:4"}.',
                        "schema": {"type": ["object", "null"]},
                    },
                    "pod_overrides": {
                        "label": "Pod overrides",
                        "description": "Part of a pod template that changes every pod, such as a node selector.",
                        "schema": {"type": ["object", "null"]},
                    },
                    "run_as_uid": {
                        "label": "User (number)",
                        "description": "That containers of jobs that name none run as; empty: the image's own.",
                        "schema": {"type": ["integer", "null"], "minimum": 1},
                    },
                    "image_pull_policy": {
                        "label": "Image pull policy",
                        "description": "Of jobs that name none: Always, IfNotPresent or Never; empty: by the tag.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "egress": {
                        "label": "Egress",
                        "description": "CIDRs that all jobs may reach, beside those that each names.",
                        "schema": {"type": ["array", "null"], "items": {"type": "string"}},
                    },
                    "secrets": {
                        "label": "Secrets",
                        "description": 'Variables of all jobs, such as {"TOKEN": "secret-name/key"}.',
                        "schema": {"type": ["object", "null"]},
                    },
                    "scheduler_name": {
                        "label": "Scheduler",
                        "description": "Of the pods of jobs that name none.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "priority_class": {
                        "label": "Priority class",
                        "description": "Of the pods of jobs that name none.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "pricing": {
                        "label": "Pricing",
                        "description": 'Hours\' prices, such as {"currency": "USD", "cpu_hour": 0.04}.',
                        "schema": {"type": ["object", "null"]},
                    },
                    "kubeconfig": {
                        "label": "Kubeconfig",
                        "description": "Path; empty: KUBECONFIG or ~/.kube/config.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "kubeconfig_secret": {
                        "label": "Kubeconfig's content",
                        "description": "Instead of a path, as kubectl config view --raw --minify -o json prints it.",
                        "schema": {"type": ["string", "null"], "format": "password"},
                    },
                    "context": {
                        "label": "Context",
                        "description": "Of the kubeconfig; empty: its current one.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "in_cluster": {
                        "label": "In cluster",
                        "description": "Use the service account of the pod that Airflow runs in.",
                        "schema": {"type": ["boolean", "null"]},
                    },
                    "kubernetes_conn_id": {
                        "label": "Kubernetes connection",
                        "description": "Id of a connection of type kubernetes that says how to reach the cluster.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "spark_history": {
                        "label": "Spark history server",
                        "description": "URL that the button Spark history of tasks with an event log leads to.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "root": {
                        "label": "Root folder",
                        "description": "Where the local backend keeps its clusters; empty: practicus in AIRFLOW_HOME.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "python": {
                        "label": "Python",
                        "description": "Interpreter of local replicas; empty: the one that Airflow runs on.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "pythons": {
                        "label": "Pythons of adapters",
                        "description": 'Before the Python above, such as {"horovod": "/opt/training/bin/python"}.',
                        "schema": {"type": ["object", "null"]},
                    },
                    "ttl": {
                        "label": "Kept for (seconds)",
                        "description": "How long the folder of a cluster stays after its end.",
                        "schema": {"type": ["integer", "null"], "minimum": 0, "default": 86400},
                    },
                    "log_limit": {
                        "label": "Kept of each log",
                        "description": "Bytes of a local replica's log that stay on disk, such as 500Mi.",
                        "schema": {"type": ["string", "null"], "default": "1Gi"},
                    },
                },
                "ui-field-behaviour": {
                    "hidden-fields": ["host", "schema", "login", "password", "port", "extra"],
                },
            }
        ],
    }


def _integration(name: str, documentation: str, tag: str, *pages: str) -> dict[str, Any]:
    """A system that jobs run on: its own documentation, and our pages about it."""
    return {
        "integration-name": name,
        "external-doc-url": documentation,
        "how-to-guide": [f"/docs/{PACKAGE}/{page}.md" for page in pages],
        "tags": [tag],
    }


def _modules(integration: str, *names: str) -> dict[str, Any]:
    return {"integration-name": integration, "python-modules": [f"practicus_provider.{name}" for name in names]}
