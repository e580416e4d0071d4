"""What went wrong, in words for whoever typed the command."""

from __future__ import annotations


class ClusterError(Exception):
    """The cluster cannot be had: the message names what is missing, and the way out."""
