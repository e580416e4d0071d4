"""``airflow practicus``: what runs, what is left over, and what would be sent."""
