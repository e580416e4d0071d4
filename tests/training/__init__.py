"""PyTorch with DeepSpeed, FairScale and Horovod on this machine, for tests of the local backend: see environment.py."""
