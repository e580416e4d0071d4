"""Distributed jobs from Apache Airflow: one task, one isolated, temporary cluster."""

__version__ = "0.1.0"
