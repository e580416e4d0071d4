"""Addresses as texts: of IPv4, of IPv6, or names of DNS."""

from __future__ import annotations


def joined(host: str, port: int) -> str:
    """``host:port``; an IPv6 address is put into brackets, as in a URL (RFC 3986)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
