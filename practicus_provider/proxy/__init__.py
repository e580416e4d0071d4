"""The process that speaks with the web pages of clusters, which run users' code and are taken for hostile.

Airflow's API server starts it, hands it a socket for each request (:mod:`.wire`), and reads nothing else of what a
replica has sent than what this process has made of it. It has none of Airflow's settings, and imports none of Airflow.
What it does for one cluster, or one page, is bounded by :mod:`.budgets`.
"""
