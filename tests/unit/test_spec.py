from __future__ import annotations

import re
from dataclasses import replace
from decimal import Decimal

import pytest

from practicus_provider.errors import SpecError
from practicus_provider.spec import Elastic, JobSpec, Resources, Volume, WorkerGroup, parse_quantity

QUANTITY = "give a positive Kubernetes quantity without spaces, such as 2, '500m' or '16Gi'"


def refusal(field: str, value: object, way_out: str) -> str:
    """A regular expression for the whole message."""
    return f"^{re.escape(f'{field}={value!r}: {way_out}')}$"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (2, 2),
        (0.5, "0.5"),
        ("3", 3),
        ("500m", "0.5"),
        ("1.5", "1.5"),
        ("2k", 2000),
        ("1M", 10**6),
        ("1Ki", 1024),
        ("1.5Gi", 3 * 2**29),
        ("1Ei", 2**60),
        ("1E", 10**18),
    ],
)
def test_a_quantity_is_the_number_that_kubernetes_reads(text, number):
    assert parse_quantity("cpu", text) == Decimal(number)


@pytest.mark.parametrize(
    "text",
    ["", " ", "4 Gi", " 4Gi", "4Gi\n", "1e", "Gi", "4GB", "4gi", "4ki", "1K", "-1", "-1Gi", -1, 0, "0", "0Gi"]
    + ["0.0", True, False, None, "1,5", "1_000", "0x10", "inf", "nan", float("inf"), float("nan"), "٤Gi", []],
)
def test_what_is_not_a_positive_quantity_is_refused_with_the_field_and_the_value(text):
    with pytest.raises(SpecError, match=refusal("cpu", text, QUANTITY)) as error:
        parse_quantity("cpu", text)
    assert error.value.field == "cpu"


@pytest.mark.parametrize("field", ["cpu", "memory"])
def test_malformed_resources_are_refused_when_they_are_made(field):
    with pytest.raises(SpecError, match=refusal(field, "4 Gi", QUANTITY)):
        Resources(**{field: "4 Gi"})


@pytest.mark.parametrize("memory", ["16", "500m", "1000k"])
def test_memory_without_its_unit_is_refused_with_a_hint(memory):
    with pytest.raises(
        SpecError, match=refusal("memory", memory, "that is under one MiB; did you forget the unit, as in '16Gi'?")
    ):
        Resources(memory=memory)


@pytest.mark.parametrize(("cpu", "cores"), [("100m", 1), (1, 1), (1.9, 1), ("2500m", 2), (4, 4)])
def test_a_framework_is_told_whole_cores_and_at_least_one(cpu, cores):
    assert Resources(cpu=cpu).cores == cores


def test_memory_in_bytes_is_a_whole_number():
    assert Resources(memory="1.5Gi").memory_bytes == 3 * 2**29


def test_an_elastic_range_whose_min_is_over_its_max_is_refused_with_both():
    with pytest.raises(SpecError, match=re.escape("workers=Elastic(min=3, max=1): min (3) is over max (1); swap them")):
        Elastic(3, 1)


@pytest.mark.parametrize("value", [0, -1, True, "2", 1.5, None])
@pytest.mark.parametrize("field", ["min", "max"])
def test_an_elastic_bound_that_is_not_a_positive_whole_number_is_refused(field, value):
    with pytest.raises(SpecError, match=refusal(f"workers.{field}", value, "give a whole number of at least 1")):
        Elastic(**{"min": 1, "max": 1} | {field: value})


@pytest.mark.parametrize("value", [0, -3, True, False, "4", "four", 2.0, None, [1], (1, 2), (), (WorkerGroup(1), 2)])
def test_a_worker_count_that_is_not_a_positive_whole_number_is_refused_with_the_field_and_the_value(value):
    way_out = "give a whole number of at least 1 or Elastic(min, max), or a list of WorkerGroup(count=...)"
    with pytest.raises(SpecError, match=refusal("workers", value, way_out)):
        JobSpec.of(adapter="dask", workers=value)


@pytest.mark.parametrize(
    ("workers", "elastic", "at_least", "at_most"),
    [(4, None, 4, 4), (Elastic(2, 20), Elastic(2, 20), 2, 20), (Elastic(2, 2), Elastic(2, 2), 2, 2)],
)
def test_workers_are_a_number_or_a_range(workers, elastic, at_least, at_most):
    spec = JobSpec.of(adapter="dask", workers=workers)
    assert (spec.elastic, spec.min_workers, spec.max_workers) == (elastic, at_least, at_most)


@pytest.mark.parametrize("field", ["application_args", "files", "requirements", "egress"])
@pytest.mark.parametrize("value", ["--date 2013-01-05", (1,), ["a", None], 5, None])
def test_a_list_of_strings_that_is_none_is_refused(field, value):
    with pytest.raises(SpecError, match=refusal(field, value, "give a list of strings")):
        JobSpec.of(adapter="dask", **{field: value})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("polars>>1", "Expected semicolon (after name with no version specifier) or end"),
        ("-r requirements.txt", "Expected package name at the start of dependency specifier"),
        ("./polars.whl", "Expected package name at the start of dependency specifier"),
    ],
)
def test_a_requirement_that_is_none_is_refused_with_the_reason(text, why):
    way_out = "give requirements such as 'polars>=1,<2', as PEP 508 has them; what pip is told stands in env="
    with pytest.raises(SpecError, match=f"^{re.escape(f'requirements={text!r}: {way_out}: {why}')}"):
        JobSpec.of(adapter="dask", requirements=("polars[async]>=1,<2; python_version > '3'", text))


@pytest.mark.parametrize("field", ["env", "conf", "secrets"])
@pytest.mark.parametrize("value", ["A=1", ["A"], {1: "a"}, None])
def test_a_dict_with_string_keys_that_is_none_is_refused(field, value):
    with pytest.raises(SpecError, match=refusal(field, value, "give a dict whose keys are strings")):
        JobSpec.of(adapter="dask", **{field: value})


@pytest.mark.parametrize("item", [("A", 1), ("A", None), ("", "a"), ("1A", "a"), ("A B", "a"), ("A=B", "a"), ("Ä", "")])
def test_an_environment_variable_that_no_process_can_have_is_refused_by_name(item):
    wrong = dict([item])
    with pytest.raises(SpecError, match=refusal("env", wrong, "names are letters, digits and _; values are strings")):
        JobSpec.of(adapter="dask", env={"FINE": "yes"} | wrong)


@pytest.mark.parametrize(
    ("field", "value", "key", "size"),
    [
        ("env", {"SMALL": "", "MODEL": "x" * 131066}, "MODEL", 131073),
        ("env", {"MODEL": "é" * 65533}, "MODEL", 131073),
        ("application_args", ["--table", "x" * 131072], 1, 131073),
    ],
)
def test_a_text_that_is_longer_than_linux_takes_is_refused_with_its_size(field, value, key, size):
    way_out = f"{size} bytes are more than the 131072 that Linux takes: give it as a file, by files="
    with pytest.raises(SpecError, match=refusal(field, {key: f"{value[key][:40]}..."}, way_out)):
        JobSpec.of(adapter="dask", **{field: value})


def test_a_text_may_be_as_long_as_linux_takes():
    JobSpec.of(adapter="dask", env={"MODEL": "x" * 131065}, application_args=["x" * 131071])


@pytest.mark.parametrize(
    ("field", "given", "value"),
    [
        ("env", {"FINE": "yes", "A": "a\0b"}, {"A": "a\0b"}),
        ("application_args", ("fine", "\0"), "\0"),
        ("files", ("a\0",), "a\0"),
    ],
)
def test_what_no_process_can_be_given_is_refused(field, given, value):
    with pytest.raises(
        SpecError, match=refusal(field, value, "leave out the NUL character: no process can be given one")
    ):
        JobSpec.of(adapter="dask", **{field: given})


def test_an_environment_variable_may_be_empty():
    assert JobSpec.of(adapter="dask", env={"A": ""}).env == {"A": ""}


@pytest.mark.parametrize(
    "item",
    [("A", "a"), ("A", "a/"), ("A", "/a"), ("A", "a/b/c"), ("A", "A/b"), ("A", "-a/b"), ("A", "a/b c"), ("A", 1)]
    + [("A B", "a/b"), ("", "a/b"), ("A", "a/b\n")],
)
def test_a_secret_that_is_not_a_name_and_a_key_is_refused(item):
    message = refusal("secrets", dict([item]), "give {'VARIABLE': 'secret-name/key'}")
    with pytest.raises(SpecError, match=message):
        JobSpec.of(adapter="dask", secrets=dict([item]))


def test_a_secret_is_a_name_and_a_key():
    spec = JobSpec.of(adapter="dask", secrets={"A": "my.secret-1/Some_key.pem"})
    assert spec.pod.secret_keys == {"A": ("my.secret-1", "Some_key.pem")}


@pytest.mark.parametrize("value", [5, ["image"]])
def test_an_image_that_is_not_a_name_is_refused(value):
    with pytest.raises(SpecError, match=refusal("image", value, "give an image's name, such as 'registry/spark:4'")):
        JobSpec.of(adapter="dask", image=value)


@pytest.mark.parametrize(
    ("cidr", "why"),
    [
        ("10.0.0.1/8", "10.0.0.1/8 has host bits set"),
        ("example.com", "'example.com' does not appear to be an IPv4 or IPv6 network"),
        ("", "'' does not appear to be an IPv4 or IPv6 network"),
    ],
)
def test_an_egress_that_is_no_cidr_is_refused_with_the_reason(cidr, why):
    with pytest.raises(SpecError, match=refusal("egress", cidr, f"give a list of CIDRs such as '10.0.0.0/8': {why}")):
        JobSpec.of(adapter="dask", egress=("0.0.0.0/0", cidr))


def test_an_egress_that_is_a_bare_address_is_refused():
    with pytest.raises(SpecError):
        JobSpec.of(adapter="dask", egress=("10.0.0.1",))


@pytest.mark.parametrize("field", ["timeout", "start_timeout"])
@pytest.mark.parametrize("value", [0, -1, True, "60", None, float("nan"), float("inf")])
def test_a_time_that_is_not_a_positive_number_is_refused(field, value):
    with pytest.raises(SpecError, match=refusal(field, value, "give a positive number of seconds or a timedelta")):
        JobSpec.of(adapter="dask", **{field: value})


@pytest.mark.parametrize(
    ("field", "choices"),
    [("teardown", "always, on_success, never"), ("stream_logs", "coordinator, all, none")],
)
@pytest.mark.parametrize("value", ["Always", "", None, True, ["always"]])
def test_a_choice_that_does_not_exist_is_refused_with_those_that_do(field, choices, value):
    with pytest.raises(SpecError, match=refusal(field, value, f"choose one of {choices}")):
        JobSpec.of(adapter="dask", **{field: value})


@pytest.mark.parametrize("field", ["worker_resources", "coordinator_resources"])
@pytest.mark.parametrize("value", ["4Gi", {"cpu": 4}, None])
def test_resources_that_are_not_resources_are_refused(field, value):
    with pytest.raises(SpecError, match=refusal(field, value, "give Resources(cpu=..., memory=...)")):
        JobSpec.of(adapter="dask", **{field: value})


@pytest.mark.parametrize("value", ["", 5, ["job.py"]])
def test_an_application_that_names_nothing_is_refused(value):
    with pytest.raises(SpecError, match=refusal("application", value, "give a path, a local:///path or a URL")):
        JobSpec.of(adapter="dask", application=value)


@pytest.mark.parametrize("value", [None, 1, object])
def test_an_adapter_that_is_not_a_name_is_refused(value):
    with pytest.raises(SpecError, match=refusal("adapter", value, "give an adapter's name or 'module.Class'")):
        JobSpec.of(adapter=value)


@pytest.mark.parametrize(
    ("field", "value", "way_out"),
    [
        ("gpu", -1, "give a whole number of at least 1 or 0"),
        ("gpu", "2", "give a whole number of at least 1 or 0"),
        ("gpu", True, "give a whole number of at least 1 or 0"),
        ("shm", "3Gi", "it is a part of memory='2Gi': give less of it, or more of that"),
        ("shm", "half", "give a positive Kubernetes quantity without spaces, such as 2, '500m' or '16Gi'"),
        ("extra", ["amd.com/gpu"], "give a dict such as {'amd.com/gpu': 1}"),
    ],
)
def test_devices_and_shared_memory_that_cannot_be_are_refused(field, value, way_out):
    with pytest.raises(SpecError, match=refusal(field, value, way_out)):
        Resources(**{field: value})


@pytest.mark.parametrize("name", ["gpu", "AMD.com/gpu", "amd.com/", "/gpu", "a b/c", 1, "nvidia.com/gpu"])
def test_a_device_that_kubernetes_would_not_know_is_refused(name):
    way_out = "name a device such as 'amd.com/gpu'; 'nvidia.com/gpu' is what gpu= asks for"
    with pytest.raises(SpecError, match=refusal("extra", name, way_out)):
        Resources(extra={name: 1})


def test_a_device_is_counted_in_whole_numbers():
    with pytest.raises(SpecError, match=refusal("extra['amd.com/gpu']", 0.5, "give a whole number of at least 1")):
        Resources(extra={"amd.com/gpu": 0.5})


@pytest.mark.parametrize("value", [0, "2", True, 1.5])
def test_a_number_of_processes_that_cannot_be_is_refused(value):
    with pytest.raises(SpecError, match=refusal("procs_per_worker", value, "give a whole number of at least 1")):
        JobSpec.of(adapter="torch", procs_per_worker=value)


def test_workers_may_be_several_groups():
    groups = (WorkerGroup(2, Resources(gpu=1)), WorkerGroup(4))
    spec = JobSpec.of(adapter="torch", workers=groups)
    assert (spec.groups, spec.elastic, spec.min_workers, spec.max_workers) == (groups, None, 6, 6)


@pytest.mark.parametrize(
    ("field", "value", "way_out"),
    [
        ("count", 0, "give a whole number of at least 1"),
        (
            "count",
            Elastic(1, 2),
            "a group's number is fixed: give a number, or workers=Elastic(min, max) without groups",
        ),
        ("resources", "4Gi", "give Resources(cpu=..., memory=...)"),
        ("image", 5, "give an image's name, such as 'registry/torch:2'"),
        ("node_selector", {"disk": 1}, "give a dict of strings, such as {'disk': 'ssd'}"),
        ("node_selector", "ssd", "give a dict of strings, such as {'disk': 'ssd'}"),
        ("procs_per_worker", 0, "give a whole number of at least 1"),
    ],
)
def test_a_group_of_workers_that_cannot_be_is_refused(field, value, way_out):
    with pytest.raises(SpecError, match=refusal(field, value, way_out)):
        WorkerGroup(**{"count": 1} | {field: value})


@pytest.mark.parametrize("field", ["progress_timeout", "grace"])
@pytest.mark.parametrize("value", [0, -1, True, "60", float("inf")])
def test_a_time_that_may_be_left_out_and_is_not_a_positive_number_is_refused(field, value):
    message = refusal(field, value, "give a positive number of seconds or a timedelta")
    with pytest.raises(SpecError, match=message):
        JobSpec.of(adapter="torch", **{field: value})


@pytest.mark.parametrize("value", [-1, True, 1.5, "2", None])
def test_a_number_of_preemptions_that_cannot_be_is_refused(value):
    with pytest.raises(SpecError, match=refusal("preemption_retries", value, "give a whole number of at least 1 or 0")):
        JobSpec.of(adapter="torch", preemption_retries=value)


@pytest.mark.parametrize(
    ("given", "field", "value", "way_out"),
    [
        ({"path": "data"}, "path", "data", "give an absolute path without '..' and without '/' at its end"),
        ({"path": "/data/"}, "path", "/data/", "give an absolute path without"),
        ({"path": "/data/../etc"}, "path", "/data/../etc", "give an absolute path without"),
        ({"path": 5}, "path", 5, "give an absolute path without"),
        ({"path": "/"}, "path", "/", "give a folder outside /practicus, /dev, /proc, /sys, such as '/data'"),
        ({"path": "/dev/shm"}, "path", "/dev/shm", "give a folder outside /practicus"),
        ({"path": "/practicus/scratch"}, "path", "/practicus/scratch", "give a folder outside /practicus"),
        ({"claim": None}, "volumes", {"path": "/data"}, "give exactly one of claim, host_path, nfs, empty_dir"),
        ({"nfs": "s:/x"}, "volumes", {"path": "/data", "claim": "data", "nfs": "s:/x"}, "give exactly one of claim"),
        ({"claim": "My_Data"}, "claim", "My_Data", "give a PersistentVolumeClaim's name, such as 'data'"),
        ({"claim": "../etc"}, "claim", "../etc", "give a PersistentVolumeClaim's name, such as 'data'"),
        ({"claim": None, "host_path": "mnt"}, "host_path", "mnt", "give an absolute path without"),
        ({"claim": None, "nfs": "server/path"}, "nfs", "server/path", "give 'server:/path'"),
        ({"claim": None, "empty_dir": "a lot"}, "empty_dir", "a lot", "give a positive Kubernetes quantity"),
        ({"claim": None, "empty_dir": "1Gi", "read_only": True}, "empty_dir", "1Gi", "leave out read_only and local"),
        ({"read_only": "yes"}, "read_only", "yes", "give True or False"),
        ({"local": "data"}, "local", "data", "give an absolute path without"),
    ],
)
def test_a_volume_that_cannot_be_is_refused(given, field, value, way_out):
    with pytest.raises(SpecError, match=refusal(field, value, way_out).rstrip("$")):
        Volume(**{"path": "/data", "claim": "data"} | given)


@pytest.mark.parametrize("value", [["/data"], (Volume,), "data", None])
def test_volumes_that_are_none_are_refused(value):
    with pytest.raises(SpecError, match=refusal("volumes", value, "give a list of Volume(path=..., claim=...)")):
        JobSpec.of(adapter="dask", volumes=value)


def test_two_volumes_at_one_path_are_refused():
    both = (Volume(path="/data", claim="a"), Volume(path="/data", claim="b"))
    with pytest.raises(SpecError, match=refusal("volumes", "/data", "two volumes have this path: give each its own")):
        JobSpec.of(adapter="dask", volumes=both)


VOLUMES = (
    Volume(path="/in", claim="in", read_only=True),
    Volume(path="/tmp/fast", empty_dir="1Gi"),
    Volume(path="/out", nfs="server:/out"),
    Volume(path="/out/own", empty_dir="1Gi"),
)


@pytest.mark.parametrize(
    ("volumes", "given", "found"),
    [((), None, None), (VOLUMES[:2], None, None), (VOLUMES, None, "/out/checkpoints"), (VOLUMES, "/out/x", "/out/x")]
    + [(VOLUMES, "/out", "/out")],
)
def test_checkpoints_lie_where_the_spec_says_or_on_the_first_volume_that_keeps_them(volumes, given, found):
    assert JobSpec.of(adapter="torch", volumes=volumes, checkpoint_dir=given).checkpoints == found


@pytest.mark.parametrize("path", ["/elsewhere", "/in/x", "/tmp/fast", "/out/own/x", "/outside"])
def test_checkpoints_that_nothing_would_keep_are_refused(path):
    way_out = "give a folder on one of volumes= that outlives a replica and may be written"
    with pytest.raises(SpecError, match=refusal("checkpoint_dir", path, way_out)):
        JobSpec.of(adapter="torch", volumes=VOLUMES, checkpoint_dir=path)


def test_settings_in_a_file_where_the_job_runs_are_not_every_frameworks():
    assert JobSpec.of(adapter="dask", conf={"a": 1}).settings == {"a": 1}
    spec = JobSpec.of(adapter="dask", conf="local:///etc/dask.json")
    with pytest.raises(SpecError, match=refusal("conf", spec.conf, "dask takes a dict, or a file beside the DAG")):
        assert spec.settings


def test_more_memory_is_asked_for_in_whole_mebibytes_and_nothing_else_changes():
    assert Resources(cpu=2, memory="1Gi", gpu=1).with_memory(1.5) == Resources(cpu=2, memory="1536Mi", gpu=1)
    groups = (WorkerGroup(2, Resources(memory="1Gi")), WorkerGroup(1))
    spec = JobSpec.of(adapter="torch", workers=groups, worker_resources=Resources(memory="3Gi"))
    assert spec.with_memory({"worker_resources": 2}) == replace(
        spec,
        workers=(WorkerGroup(2, Resources(memory="2048Mi")), WorkerGroup(1)),
        worker_resources=Resources(memory="6144Mi"),
    )
    plain = JobSpec.of(adapter="dask", coordinator_resources=Resources(memory="1Gi"))
    grown = replace(plain, coordinator_resources=Resources(memory="1127Mi"))
    assert plain.with_memory({"coordinator_resources": 1.1}) == grown
    assert plain.with_memory({}) == plain


def test_resources_say_by_which_argument_they_were_given_whatever_is_made_of_them():
    shared = Resources(memory="1Gi")
    groups = (WorkerGroup(2, shared), WorkerGroup(1))
    spec = JobSpec.of(adapter="torch", workers=groups, worker_resources=shared, coordinator_resources=shared)
    for found in (spec, spec.with_memory({"worker_resources": 2}), replace(spec, timeout=5)):
        assert found.worker_resources.argument == "worker_resources"
        assert found.coordinator_resources.argument == "coordinator_resources"
        assert [group.resources and group.resources.argument for group in found.groups] == ["worker_resources", None]
    assert shared.argument is None


@pytest.mark.parametrize("value", [1, 0.5, 11, "2", True])
def test_memory_grows_by_a_factor_that_makes_sense(value):
    way_out = "give a number over 1 and up to 10, such as 1.5"
    with pytest.raises(SpecError, match=refusal("oom_memory_factor", value, way_out)):
        JobSpec.of(adapter="dask", oom_memory_factor=value)


def test_what_is_not_given_has_the_documented_default():
    assert JobSpec.of(adapter="dask") == JobSpec(
        adapter="dask",
        application=None,
        application_args=(),
        env={},
        files=(),
        workers=1,
        worker_resources=Resources(cpu=1, memory="2Gi"),
        coordinator_resources=Resources(cpu=1, memory="2Gi"),
        procs_per_worker=None,
        conf={},
        timeout=86_400,
        start_timeout=600,
        teardown="always",
        stream_logs="coordinator",
    )


@pytest.mark.parametrize("value", [0, -1, True, "1000", "spark", 2**31])
def test_who_containers_run_as_is_a_number_and_not_root(value):
    way_out = "give a user's number, from 1 to 2147483647: Kubernetes takes no name, and root is refused"
    with pytest.raises(SpecError, match=refusal("run_as_uid", value, way_out)):
        JobSpec.of(adapter="dask", run_as_uid=value)


@pytest.mark.parametrize("value", ["", "always", True])
def test_an_image_is_pulled_as_kubernetes_knows_it(value):
    way_out = "choose one of Always, IfNotPresent, Never"
    with pytest.raises(SpecError, match=refusal("image_pull_policy", value, way_out)):
        JobSpec.of(adapter="dask", image_pull_policy=value)
