"""A device plugin whose devices are made up: the kubelet of its machine has them to give away for as long as it runs.

It speaks gRPC with the kubelet, by messages that are written here by hand, since they are few and small (``api.proto``
in ``k8s.io/kubelet``, ``pkg/apis/deviceplugin/v1beta1``). What a kubelet does not ask of it is left out. It is the one
part of the cluster that needs a package, ``grpcio``, and no cluster has it unless a test starts it.
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.cluster.machine import Component

FOLDER = Path("/var/lib/kubelet/device-plugins")
"""Where a kubelet and its plugins meet: no option moves it, but each machine has a ``/var/lib`` of its own."""
GIVEN = "DEVICES"
"""Variable of a container: the devices that it was given, with commas between them."""
PATIENCE = 10.0
"""Seconds for the kubelet to answer."""


def device_plugin(resource: str, devices: Sequence[str], unhealthy: Collection[str] = ()) -> Component:
    """Offers a node's pods these devices.

    :param unhealthy: those of them that may not be given away.
    """
    command = [sys.executable, "-m", __name__, resource, *devices, "--unhealthy", *unhealthy]
    return Component(f"devices-{_file_name(resource)}", command, inputs=[Path(__file__).read_text()])


def serve(resource: str, devices: Sequence[str], unhealthy: Collection[str]) -> None:
    """Be the plugin, until a signal ends it; the kubelet sees that, and gives away none from then on."""
    import grpc

    health = {device: "Unhealthy" if device in unhealthy else "Healthy" for device in devices}

    def list_and_watch(request: bytes, context: Any) -> Iterator[bytes]:
        """ListAndWatchResponse: they stay as they are."""
        yield b"".join(_field(1, _field(1, device) + _field(2, said)) for device, said in health.items())
        gone = threading.Event()
        context.add_callback(gone.set)
        gone.wait()

    def allocate(request: bytes, context: Any) -> bytes:
        """AllocateRequest, which lists for each container its devices, to AllocateResponse: ``envs`` for each."""
        containers = [",".join(given.decode() for given in _repeated(container)) for container in _repeated(request)]
        return b"".join(_field(1, _field(1, _field(1, GIVEN) + _field(2, given))) for given in containers)

    unary = grpc.unary_unary_rpc_method_handler
    methods = {
        "GetDevicePluginOptions": unary(lambda request, context: b""),
        "ListAndWatch": grpc.unary_stream_rpc_method_handler(list_and_watch),
        "Allocate": unary(allocate),
    }
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("v1beta1.DevicePlugin", methods)])
    socket = f"{_file_name(resource)}.sock"
    server.add_insecure_port(f"unix:{FOLDER / socket}")
    server.start()
    with grpc.insecure_channel(f"unix:{FOLDER / 'kubelet.sock'}") as kubelet:
        register = kubelet.unary_unary("/v1beta1.Registration/Register")
        request = _field(1, "v1beta1") + _field(2, socket) + _field(3, resource)
        register(request, timeout=PATIENCE, wait_for_ready=True)
    print(f"the kubelet knows of {resource}: {health}", flush=True)
    server.wait_for_termination()


def _file_name(resource: str) -> str:
    return resource.replace("/", "_")


# ---- protocol buffers, as far as they are strings and messages


def _field(number: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return bytes([number << 3 | 2]) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])


def _repeated(message: bytes) -> Iterable[bytes]:
    """The values of a message that has one repeated field."""
    at = 0
    while at < len(message):
        at, size, shift = at + 1, 0, 0  # after the tag
        while message[at] & 0x80:
            size, shift, at = size | (message[at] & 0x7F) << shift, shift + 7, at + 1
        size, at = size | message[at] << shift, at + 1
        yield message[at : at + size]
        at += size


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("resource")
    parser.add_argument("devices", nargs="+")
    parser.add_argument("--unhealthy", nargs="*", default=[])
    serve(**vars(parser.parse_args()))
