"""Decorators of TaskFlow: Airflow finds them by :mod:`practicus_provider.get_provider_info`."""
