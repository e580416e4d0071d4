"""Enforces NetworkPolicies on one node of the test cluster: see the README of the folder above."""
