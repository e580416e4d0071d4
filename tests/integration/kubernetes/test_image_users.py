"""Images as others publish them, whose user is root or stands there by name."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from practicus_provider.backends.base import LogLine
from practicus_provider.backends.kubernetes import KubernetesBackend
from practicus_provider.status import Reason, State
from tests.cluster import images, target
from tests.cluster.cluster import Cluster
from tests.cluster.layout import CACHE
from tests.plans import created, end, plan, read, role, verdict_of, with_pods

pytestmark = pytest.mark.cluster

WHO = "import getpass, os, pathlib; (pathlib.Path.home() / 'mine').touch(); print(getpass.getuser(), os.getuid())"


def with_user(archive: Path, tag: str, user: str, into: Path) -> Path:
    """The image of an archive, as ``docker save`` makes it, with another ``USER``."""
    made = into / "image.tar"
    with tarfile.open(archive) as old, tarfile.open(made, "w") as new:

        def load(name: str) -> Any:
            file = old.extractfile(name)
            assert file is not None
            return json.load(file)

        def add(name: str, content: bytes) -> None:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            new.addfile(member, io.BytesIO(content))

        (manifest,) = load("manifest.json")
        described = load(manifest["Config"])
        described["config"]["User"] = user
        config = json.dumps(described).encode()
        name = f"{hashlib.sha256(config).hexdigest()}.json"
        for layer in manifest["Layers"]:
            new.addfile(old.getmember(layer), old.extractfile(layer))
        add(name, config)
        add("manifest.json", json.dumps([{**manifest, "Config": name, "RepoTags": [tag]}]).encode())
    return made


@pytest.fixture(params=[("rooted", ""), ("named", "job")], ids=lambda param: param[0])
def foreign(request: pytest.FixtureRequest, cluster: Cluster, tmp_path: Path) -> str:
    """An image as it is, but for its user."""
    name, user = request.param
    tag = f"localhost/practicus/{name}:dev"
    target.run("load", str(with_user(images.archive("python", CACHE / "images"), tag, user, tmp_path)))
    return tag


async def test_an_image_with_a_foreign_user_runs_under_a_number_and_without_one_the_way_out_is_said(
    backend: KubernetesBackend, foreign: str
) -> None:
    job = plan(role("driver", WHO), image=foreign)
    verdict = await verdict_of(backend, job)
    assert (verdict.reason, verdict.replica) == (Reason.CONFIG_ERROR, "driver-0")
    assert verdict.advice == (
        f"Give run_as_uid= the number of a user that image {foreign} can run as, such as 1000; root, which is 0, is "
        "refused. Or give the image a numeric USER."
    )
    async with created(backend, "job", with_pods(job, run_as_uid=4711)) as handle:
        assert (await end(backend, handle)).state is State.SUCCEEDED
        assert await read(backend, handle, "driver") == [LogLine("driver", 0, "practicus 4711")]
