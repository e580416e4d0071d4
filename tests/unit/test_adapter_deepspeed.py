from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from practicus_provider.adapters import load
from practicus_provider.errors import SpecError
from practicus_provider.plan import Here, Host, Launch, Port, Role
from practicus_provider.spec import JobSpec, Resources

PROGRAM = (Here.PYTHON, (Here.APP, "/train.py"), "--deepspeed")
FILE = (Here.SCRATCH, "/ds_config.json")
GPU = Resources(gpu=1)


def worker(conf: Any = None, workers: int = 2, **more: Any) -> Role:
    job = JobSpec.of(adapter="deepspeed", workers=workers, conf=conf or {}, **more)
    (role,) = load("deepspeed").roles(job, PROGRAM)
    return role


def refused(message: str) -> pytest.RaisesExc[SpecError]:
    return pytest.raises(SpecError, match=f"^{re.escape(message)}")


def env(workers: int, **more: Any) -> dict[str, Any]:
    return {
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": Host("worker"),
        "MASTER_PORT": Port("worker", "rendezvous", first=True),
        "WORLD_SIZE": str(workers),
        "LOCAL_WORLD_SIZE": "1",
        "GROUP_RANK": Here.INDEX,
        "GROUP_WORLD_SIZE": str(workers),
        "PRACTICUS_MEETS": "torch",
        "LOCAL_SIZE": "1",
        "PRACTICUS_LOCAL_RANK": "--local_rank",
        **more,
    }


def test_the_script_gets_the_configuration_as_deepspeeds_own_runner_gives_it():
    config = {"train_batch_size": 16, "zero_optimization": {"stage": 2}, "bf16": {"enabled": True}}
    assert worker(config).launch == Launch(
        (Here.PYTHON, "-S", "-m", "practicus_runtime.ranks", *PROGRAM[1:], "--deepspeed_config", FILE),
        env(2, DS_CONFIG=FILE),
        {"ds_config.json": json.dumps(config, indent=2)},
        {"rendezvous": 29500},
    )


def test_a_configuration_in_the_image_is_named_and_not_looked_at():
    launch = worker("local:///etc/ds.json").launch
    assert launch == Launch(
        (Here.PYTHON, "-S", "-m", "practicus_runtime.ranks", *PROGRAM[1:], "--deepspeed_config", "/etc/ds.json"),
        env(2, DS_CONFIG="/etc/ds.json"),
        ports={"rendezvous": 29500},
    )


def test_a_script_that_has_a_configuration_of_its_own_gets_none():
    command = (Here.PYTHON, "-S", "-m", "practicus_runtime.ranks", *PROGRAM[1:])
    assert worker().launch == Launch(command, env(2), ports={"rendezvous": 29500})


def test_a_script_of_hugging_faces_gets_the_configuration_by_the_argument_that_it_takes():
    launch = worker({MICRO: 1}, ds_config_argument="--deepspeed").launch
    assert launch.command[-2:] == ("--deepspeed", FILE)
    assert launch.env["DS_CONFIG"] == FILE
    assert worker(ds_config_argument="--deepspeed").launch.command == worker().launch.command


def test_a_script_that_takes_no_local_rank_gets_none():
    env_without = {name: value for name, value in env(2).items() if name != "PRACTICUS_LOCAL_RANK"}
    assert worker(local_rank=False).launch == replace(worker().launch, env=env_without)


BATCH, MICRO, STEPS = "train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"


@pytest.mark.parametrize(
    "config",
    [
        {BATCH: 32},
        {MICRO: 3},
        {BATCH: 32, MICRO: 4},
        {BATCH: 32, STEPS: 8},
        {MICRO: 3, STEPS: 5},
        {BATCH: 32, MICRO: 4, STEPS: 2},
        {BATCH: "auto", MICRO: "auto", STEPS: "auto"},
        {BATCH: 30, MICRO: "auto"},
        {BATCH: 32, STEPS: None},
    ],
)
def test_a_batch_that_goes_into_equal_parts_is_accepted(config):
    assert json.loads(worker(config, workers=4).launch.files["ds_config.json"]) == config


LEAVE = f"; change one, or leave {BATCH} out where ranks share a model: DeepSpeed computes it"


@pytest.mark.parametrize(
    ("config", "relation"),
    [
        ({BATCH: 30}, "30 is no multiple of 4 (ranks: 4 workers x 1)"),
        ({BATCH: 30, MICRO: 5}, f"30 is no multiple of 5 ({MICRO}) x 4 (ranks: 4 workers x 1) = 20"),
        ({BATCH: 30, STEPS: 2}, f"30 is no multiple of 2 ({STEPS}) x 4 (ranks: 4 workers x 1) = 8"),
        (
            {BATCH: 32, MICRO: 4, STEPS: 1},
            f"32 is not 4 ({MICRO}) x 1 ({STEPS}) x 4 (ranks: 4 workers x 1) = 16",
        ),
    ],
)
def test_a_batch_that_the_ranks_do_not_divide_is_refused_with_the_numbers(config, relation):
    with refused(f"ds_config['{BATCH}']={config[BATCH]}: {relation}{LEAVE}"):
        worker(config, workers=4)


def test_ranks_are_workers_times_processes():
    with refused(f"ds_config['{BATCH}']=10: 10 is no multiple of 4 (ranks: 2 workers x 2){LEAVE}"):
        worker({BATCH: 10}, procs_per_worker=2)


@pytest.mark.parametrize("value", [0, -1, 1.5, "8", True])
def test_a_batch_that_is_no_number_is_refused(value):
    with refused(f"ds_config['{BATCH}']={value!r}: give a whole number of at least 1"):
        worker({BATCH: value})


def test_a_configuration_without_a_batch_is_refused():
    with refused(f"ds_config={{'{STEPS}': 2}}: DeepSpeed needs {BATCH} or {MICRO}"):
        worker({STEPS: 2})


def test_half_precision_of_16_bits_is_refused_without_a_device():
    config = {MICRO: 1, "fp16": {"enabled": True}}
    with refused("ds_config['fp16']={'enabled': True}: DeepSpeed has fp16 on GPUs alone: give worker_resources="):
        worker(config)
    assert worker(config, worker_resources=GPU).launch.files
    assert worker(config, worker_resources=Resources(extra={"amd.com/gpu": 1})).launch.files
    assert worker({MICRO: 1, "fp16": {"enabled": "auto"}, "bf16": {"enabled": True}}).launch.files


@pytest.mark.parametrize("value", [Path("/x"), float("nan"), {1, 2}])
def test_what_json_cannot_hold_is_refused(value):
    with refused("ds_config="):
        worker({MICRO: 1, "wall_clock_breakdown": value})
