"""A connection to a port of a pod, by way of the API server and the kubelet of the pod's node.

The kubelet has the container runtime connect within the pod's own network namespace, on loopback: no route to the pod
is needed, and no NetworkPolicy stands in the way. The protocol is that of the kubelet's WebSocket endpoint
(``handleWebSocketStreams`` in Kubernetes' ``pkg/kubelet/cri/streaming/portforward/websocket.go``): each message starts
with the number of a channel, and the first one on each channel holds the port.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from practicus_provider.backends.base import Connection
from practicus_provider.errors import ReplicaError

if TYPE_CHECKING:
    import aiohttp

PROTOCOL = "v4.channel.k8s.io"
DATA = 0
ERROR = 1


@dataclass
class PortForward(Connection):
    """One forwarded port, which is one connection in the pod.

    :param socket: accepted by the kubelet with :data:`PROTOCOL`.
    :param resources: what lives as long as the connection.
    """

    socket: aiohttp.ClientWebSocketResponse
    resources: contextlib.AsyncExitStack
    _greeted: set[int] = field(default_factory=set)

    async def read(self) -> bytes:
        """See :meth:`Connection.read`."""
        import aiohttp

        async for message in self.socket:
            if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
                continue
            channel, data = message.data[0], bytes(message.data[1:])
            if channel not in self._greeted:
                self._greeted.add(channel)
            elif channel == ERROR:
                raise ReplicaError(f"the port cannot be reached: {data.decode(errors='replace')}")
            elif data:
                return data
        return b""

    async def write(self, data: bytes) -> None:
        """See :meth:`Connection.write`."""
        try:
            await self.socket.send_bytes(bytes((DATA,)) + data)
        except ConnectionError as error:
            raise ReplicaError("the port's connection is closed") from error

    async def close(self) -> None:
        """See :meth:`Connection.close`."""
        await self.resources.aclose()
