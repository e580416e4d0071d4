"""What is supported beside what ``uv.lock`` has: other versions of Airflow, as their users install them."""
