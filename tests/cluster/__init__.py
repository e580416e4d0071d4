"""A real Kubernetes on this machine, for the tests: see README.md."""
