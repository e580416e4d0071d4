"""What Airflow shows under ``airflow plugins``: found by the entry point ``airflow.plugins``."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin


class PracticusPlugin(AirflowPlugin):
    """Adds nothing to other operators: ours declare their own link, which Airflow then reads from its XCom."""

    name = "practicus"
