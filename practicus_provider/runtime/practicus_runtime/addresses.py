"""Addresses of IPv4 and of IPv6: as texts, and what listens there."""

from __future__ import annotations

import socket


def joined(host: str, port: int) -> str:
    """``host:port``, as in a URL."""
    return f"{bracketed(host)}:{port}"


def bracketed(host: str) -> str:
    """A host as a URL has it: an IPv6 address stands in brackets (RFC 3986)."""
    return f"[{host}]" if ":" in host else host


def family(address: str) -> socket.AddressFamily:
    """Of the socket that listens at an address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET
