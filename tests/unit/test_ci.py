"""What others run of this project's checks is what the Makefile runs."""

from __future__ import annotations

import re
from typing import Any

import yaml

from tests.docs import REPO

MAKEFILE = (REPO / "Makefile").read_text()


def recipe(target: str) -> list[str]:
    (found,) = re.findall(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    return [line.strip().replace("$(BIN)", ".venv/bin") for line in found.splitlines()]


def loaded(path: str) -> Any:
    return yaml.safe_load((REPO / path).read_text())


def test_a_commit_is_asked_for_what_make_check_asks_but_for_the_tests():
    (hooks,) = (repo["hooks"] for repo in loaded(".pre-commit-config.yaml")["repos"])
    assert [hook["entry"].replace(" --force-exclude", "") for hook in hooks] == recipe("check")[:-1]


def test_the_hosted_ci_has_all_of_make_test_in_parts_that_run_side_by_side():
    (job,) = loaded(".github/workflows/ci.yml")["jobs"].values()
    targets = job["strategy"]["matrix"]["target"]
    parts = {target: " ".join(recipe(target)) for target in targets}
    assert list(parts) == ["check", "test-local", "test-kubernetes", "test-training"]
    asked = [re.search(r"""-m ("[^"]+"|\w+)""", part) for part in parts.values()]
    assert [found and found[1].strip('"') for found in asked] == [
        None,
        "not cluster and not training",
        "cluster",
        "training and not cluster",
    ]
