"""What the documentation says is what the code does."""

from __future__ import annotations

import ast
import inspect
import json
import re
import runpy
import shlex
import signal
import subprocess
import sys
import tomllib
from datetime import timedelta
from pathlib import Path
from textwrap import indent
from typing import Any

import practicus_runtime
import pytest
import yaml
from airflow.cli.cli_parser import get_parser

from practicus_provider.adapters import BUILT_IN, ENTRY_POINT_GROUP, Adapter
from practicus_provider.application import SHIP_LIMIT
from practicus_provider.backends.base import Backend
from practicus_provider.backends.kubernetes import KubernetesBackend
from practicus_provider.backends.kubernetes.access import Access
from practicus_provider.backends.kubernetes.pod_template import Site
from practicus_provider.backends.kubernetes.rbac import role_of_the_user
from practicus_provider.backends.kubernetes.render import BUNDLE_LIMIT, TTL
from practicus_provider.backends.local import LocalBackend
from practicus_provider.errors import ConnectionConfigError
from practicus_provider.get_provider_info import get_provider_info
from practicus_provider.hooks.practicus import BACKENDS, PracticusHook
from practicus_provider.operators.base import ClusterOperator
from practicus_provider.operators.job import PracticusRunJobOperator
from practicus_provider.plan import Here, Launch, Role
from practicus_provider.spec import Resources, parse_quantity
from practicus_provider.status import Reason, State
from tests.airflow_names import dag_bag
from tests.cluster.binaries import KUBERNETES as KUBERNETES_VERSION
from tests.docs import PAGES, README, REPO, blocks, page_name, prose
from tests.matrix.environments import NEWEST, OLDER
from tests.unit.test_package import PUBLIC

ARCHITECTURE = REPO / "docs" / "architecture.md"
KUBERNETES = REPO / "docs" / "kubernetes.md"
VERSIONS = REPO / "docs" / "versions.md"
CUSTOM = REPO / "docs" / "custom-adapters.md"
TUTORIALS = sorted((REPO / "docs").glob("tutorial*.md"))
"""Steps that make sense in their order alone: ``tests/e2e/test_tutorials.py`` types all of them."""

BLOCKS = [block for page in PAGES for block in blocks(page)]
QUOTES = [block for block in BLOCKS if block.mark == "quotes"]
PYTHON = [block for block in BLOCKS if block.language == "python" and block.mark != "quotes"]
WITH_OPERATORS = [block for block in PYTHON if re.search(r"Operator\(\n|DAG\(", block.text)]
IN_REPLICAS = [
    block for block in PYTHON if "import practicus_runtime as pr" in block.text and block.page not in TUTORIALS
]
COMMANDS = ("airflow ", "docker ", "helm ", "kind ", "kubectl ", "make ", "pip ", "python")
SHELL = [
    block for block in BLOCKS if block.language == "sh" or (not block.language and block.text.startswith(COMMANDS))
]
DATA = {"yaml": lambda text: list(yaml.safe_load_all(text)), "json": json.loads, "toml": tomllib.loads}
RUNNING = frozenset({"", "python", "sh", "{eval-rst}", *DATA})
"""Languages of which a test knows what to do with a block; none: what is printed, or drawn."""


def table(page: Path, first: str) -> list[list[str]]:
    """The cells of the table whose first column has that title, without its head."""
    (rows,) = re.findall(rf"^\| {re.escape(first)} \|.*\n\|[-|]+\n((?:\|.*\n)+)", page.read_text(), re.MULTILINE)
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows.splitlines()]


def code(cell: str) -> str:
    """What stands between a cell's backticks."""
    return cell.strip("`")


def anchor(heading: str) -> str:
    """The fragment by which a heading is linked."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


# ---- what every page is held to


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_link_leads_to_a_page_and_a_heading_that_are_there(page):
    for target in re.findall(r"\]\(([^)]+)\)", prose(page)):
        if "://" in target:
            continue
        path, _, fragment = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.is_file(), target
        if fragment:
            headings = re.findall(r"^#+ (.+)$", prose(linked), re.MULTILINE)
            assert fragment in map(anchor, headings), target


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_file_that_a_page_names_is_there(page):
    folders = "practicus_provider|example_dags|benchmarks|tests|docs"
    named = re.findall(rf"`((?:{folders})/[^`<]*)`", page.read_text())
    assert [name for name in named if not (REPO / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_target_of_make_that_a_page_names_is_there(page):
    targets = set(re.findall(r"^([a-z]+):", (REPO / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z]+)`", page.read_text())) <= targets


@pytest.mark.parametrize("block", QUOTES, ids=str)
def test_what_a_page_quotes_is_in_the_file_as_it_stands(block):
    source = (REPO / block.about).read_text()
    assert block.text in source or indent(block.text, "    ") in source


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_no_line_is_longer_than_the_code_s(page):
    long = [line for line in page.read_text().splitlines() if len(line) > 120 and not line.startswith("|")]
    assert long == []


# ---- what every block is held to


def test_every_block_is_in_a_language_that_a_test_reads():
    assert {block.language for block in BLOCKS} <= RUNNING


def test_the_blocks_that_no_test_runs_are_these():
    assert [str(block)[:60] for block in BLOCKS if block.mark == "not run:"] == [
        "README: pip install apache-airflow==3.3.2 '.[spark,dask]' \\",
        "docs/kubernetes: kubectl -n jobs get jobs,pods,configmaps -l",
        "docs/operations: make docs",
        "images/README: docker build --tag $REGISTRY/spark:4.3.0 imag",
        "tests/cluster/README: python -m tests.cluster up            ",
        "tests/cluster/README: PRACTICUS_TEST_KUBECONFIG=~/.kube/conf",
        "tests/cluster/README: export PRACTICUS_TEST_CLUSTER_NUMBER=7",
    ]


def test_every_block_of_python_is_whole_and_names_nothing_that_is_not_there(tmp_path):
    for number, block in enumerate(PYTHON):
        (tmp_path / f"{block.page.stem}_{number}.py").write_text(block.text)
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "E9,F", tmp_path]
    done = subprocess.run(ruff, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("block", WITH_OPERATORS, ids=str)
def test_airflow_reads_a_page_s_dag_with_every_task_in_it(block, tmp_path, monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT", "0")  # a busy machine imports other providers slowly
    for application in re.findall(r'application="((?!local:)[^"]+)"', block.text):
        (tmp_path / application).parent.mkdir(exist_ok=True)
        (tmp_path / application).touch()
    text = block.text
    if "with DAG(" not in text:
        text = f'from airflow.sdk import DAG\n\nwith DAG("page"):\n{indent(text, "    ")}'
    (tmp_path / "dag.py").write_text(text)
    bag = dag_bag(tmp_path)
    assert bag.import_errors == {}
    [dag] = bag.dags.values()
    named = re.findall(r'task_id="(\w+)"', text) + re.findall(r"@task.*\n +def (\w+)", text)
    assert named
    assert set(named) <= {task.label for task in dag.tasks}


@pytest.mark.parametrize("block", IN_REPLICAS, ids=str)
def test_a_page_s_script_runs_where_a_replica_would_run_it(block, tmp_path, monkeypatch):
    task = {"dag_id": "d", "task_id": "t", "run_id": "r", "map_index": -1, "try_number": 1, "logical_date": None}
    replica = {"TASK": json.dumps(task), "ROLE": "driver", "INDEX": "0", "CLIENT": "types:SimpleNamespace"}
    folders = {"RESULT": str(tmp_path / "result.json"), "CHECKPOINT_DIR": str(tmp_path / "checkpoints")}
    for name, value in (replica | folders).items():
        monkeypatch.setenv(f"PRACTICUS_{name}", value)
    (tmp_path / "job.py").write_text(block.text)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        runpy.run_path(str(tmp_path / "job.py"), run_name="__main__")
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert len(list(tmp_path.iterdir())) > 1  # a result, or a checkpoint


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language in DATA], ids=str)
def test_every_block_of_data_can_be_read(block):
    assert DATA[block.language](block.text)


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_every_block_of_shell_can_be_read_and_its_commands_are_those_that_there_are(block):
    subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
    if block.mark or block.page in TUTORIALS:
        return
    for command in re.split(r"^(?=airflow |make )", block.text, flags=re.MULTILINE)[1:]:
        program, *arguments = shlex.split(command)
        if program == "airflow":
            get_parser().parse_args(arguments)
    assert block.text.startswith(("airflow ", "make "))


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.mark == "file"], ids=str)
def test_the_text_names_the_file_that_a_block_is_saved_as(block):
    before = block.page.read_text().partition(f"<!-- file {block.about} -->")[0]
    assert f"`{block.about}`" in before[before.rindex("\n\n", 0, -2) :]


# ---- the site


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """Built as ``make docs`` builds it; a warning fails it."""
    out = tmp_path_factory.mktemp("site")
    options = ["--quiet", "--fail-on-warning", "--keep-going", "--conf-dir", REPO / "docs"]
    done = subprocess.run([sys.executable, "-m", "sphinx", *options, REPO, out], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


def test_the_site_s_navigation_leads_to_every_page(site):
    front = (site / "docs" / "index.html").read_text()
    (navigation,) = re.findall(r'<div class="sidebar-tree">(.*?)</div>\s*</div>', front, re.DOTALL)
    linked = {(site / "docs" / link).resolve() for link in re.findall(r'href="([^"#]+\.html)"', navigation)}
    assert {site / page.relative_to(REPO).with_suffix(".html") for page in PAGES} - linked == {site / "docs/index.html"}
    assert "url=docs/index.html" in (site / "index.html").read_text()


def test_the_site_loads_nothing_from_elsewhere(site):
    loading = re.compile(
        r"""<(?:script|link|img|iframe)\b[^>]*(?:src|href)=["'](?:https?:)?//|url\(["']?(?:https?:)?//"""
    )
    texts = {path: path.read_text() for path in site.rglob("*") if path.suffix in (".html", ".css")}
    assert [path for path, text in texts.items() if loading.search(text)] == []


def test_the_reference_has_every_public_name(site):
    text = (site / "docs" / "reference.html").read_text()
    inside = [f"practicus_runtime.{name}" for name in practicus_runtime.__all__]
    assert [name for name in (*PUBLIC, *inside) if f'id="{name}"' not in text] == []


# ---- the README


def test_the_readme_s_command_adds_the_connection_that_is_missing(monkeypatch):
    (command,) = [line for block in blocks(README) for line in block.text.splitlines() if "connections add" in line]
    with pytest.raises(ConnectionConfigError) as error:
        PracticusHook().get_conn()
    assert f"Add it: {command} (" in str(error.value)
    extra = json.loads(command.partition("--conn-extra ")[2].strip("'"))
    connection = json.dumps({"conn_type": "practicus", "extra": extra})
    monkeypatch.setenv("AIRFLOW_CONN_PRACTICUS_DEFAULT", connection)
    assert isinstance(PracticusHook().get_conn(), LocalBackend)


def test_the_readme_s_extras_are_those_of_the_connection():
    rows = {code(name): (default, meaning) for name, default, meaning in table(README, "extra")}
    (connection,) = get_provider_info()["connection-types"]
    assert list(rows) == list(connection["conn-fields"])
    assert [code(name) for name in rows["backend"][1].split(", ")] == list(BACKENDS)
    assert code(rows["backend"][0]) == connection["conn-fields"]["backend"]["schema"]["default"]
    assert rows["ttl"][0] == f"{LocalBackend.ttl:g}"
    assert parse_quantity("log_limit", rows["log_limit"][0]) == LocalBackend.log_limit


def test_the_readme_s_adapters_are_those_that_are_built_in():
    rows = {code(row[0]): code(row[1]) for row in table(README, "adapter")}
    assert set(rows) == set(BUILT_IN)
    for name, operator in rows.items():
        module = f"practicus_provider.operators.{name}"
        assert operator in vars(__import__(module, fromlist=[operator]))


def test_the_readme_s_arguments_are_the_operators_with_their_defaults():
    rows = {code(name): code(default) for name, default, _ in table(README, "argument")}
    arguments: dict[str, Any] = {}
    for cls in PracticusRunJobOperator.__mro__[: PracticusRunJobOperator.__mro__.index(ClusterOperator) + 1]:
        for name, parameter in inspect.signature(cls.__init__).parameters.items():
            if parameter.kind is parameter.KEYWORD_ONLY:
                arguments[name] = parameter.default
    names = {"Resources": Resources, "timedelta": timedelta, "required": inspect.Parameter.empty}
    assert {name: eval(default, names) for name, default in rows.items()} == arguments


def test_the_readme_s_templated_arguments_are_the_operators():
    (names,) = re.findall(r"^Templated: (.+?)\.$", README.read_text(), re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"`(\w+)`", names)) == set(PracticusRunJobOperator.template_fields)


def test_the_readme_s_limit_of_what_travels_is_the_code_s():
    assert f"{SHIP_LIMIT >> 20} MiB" in README.read_text()


# ---- the architecture


def test_the_architecture_s_states_and_reasons_are_all_that_there_are():
    assert [code(name) for name, _ in table(ARCHITECTURE, "reason")] == [*dict.fromkeys(map(str, Reason))]
    words = dict(table(ARCHITECTURE, "word"))
    assert words["state"].split(", ") == list(map(str, State))


def test_the_architecture_names_every_verb_of_a_backend():
    verbs = re.search(r"its verbs: (.+?)\. Its", ARCHITECTURE.read_text(), re.DOTALL)[1]
    assert set(re.findall(r"`(\w+)`", verbs)) == Backend.__abstractmethods__


def test_the_architecture_s_layers_are_those_that_are_enforced():
    (drawn,) = [block.text for block in blocks(ARCHITECTURE) if block.text.startswith("cli ")]
    (enforced,) = re.findall(r"^layers = \[\n(.*?)\]", (REPO / "pyproject.toml").read_text(), re.MULTILINE | re.DOTALL)
    layers = [re.split(r"\s{2,}", line)[0] for line in drawn.splitlines()]
    assert layers == re.findall(r'"(.+)"', enforced)


# ---- Kubernetes


def test_the_user_s_role_is_what_the_command_line_prints():
    (block,) = [block.text for block in blocks(KUBERNETES) if "kind: RoleBinding\n" in block.text]
    assert tuple(yaml.safe_load_all(block)) == role_of_the_user("jobs", "airflow", "airflow-worker")


def test_the_command_of_the_kubernetes_page_makes_a_connection_of_that_backend(monkeypatch):
    (command,) = [block.text for block in blocks(KUBERNETES) if "connections add" in block.text]
    extra = json.loads(command.partition("--conn-extra '")[2].rpartition("'")[0])
    monkeypatch.setenv("AIRFLOW_CONN_PRACTICUS_DEFAULT", json.dumps({"conn_type": "practicus", "extra": extra}))
    assert PracticusHook().get_conn() == KubernetesBackend(Access(), Site(extra["namespace"], extra["image"]))


def test_the_kubernetes_page_s_numbers_are_the_code_s():
    text = KUBERNETES.read_text()
    assert f"{BUNDLE_LIMIT:,} bytes" in text
    assert f"{TTL} s" in text


# ---- versions


def pinned(*files: str) -> dict[str, str]:
    """Package -> its version in such files, the first that names it; ``uv.lock`` among them."""
    found: dict[str, str] = {}
    for file in files:
        text = (REPO / file).read_text()
        for name, version in re.findall(r'^(?:name = ")?([a-z0-9-]+)(?:"\nversion = "|==)([\w.]+)', text, re.MULTILINE):
            found.setdefault(name, version)
    return found


def test_the_versions_that_are_tested_are_those_that_are_said():
    said = {what: tested for what, _, tested in table(VERSIONS, "what")}
    locked = pinned("tests/training/requirements.txt", "images/training/sources.txt", "uv.lock")
    packages = {"Airflow": "apache-airflow", "Spark": "pyspark", "Dask": "dask", "PyTorch": "torch"}
    packages |= {name: name.lower() for name in ("DeepSpeed", "FairScale", "Horovod")}
    assert {what: said[what] for what in packages} == {what: locked[name] for what, name in packages.items()}
    assert KUBERNETES_VERSION.startswith(f"{said['Kubernetes']}.")


def test_the_versions_that_are_supported_are_those_that_can_be_installed():
    said = {what: supported for what, supported, _ in table(VERSIONS, "what")}
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    classified = re.findall(r"Python :: (3\.\d+)$", "\n".join(project["classifiers"]), re.MULTILINE)
    assert said["Python, where Airflow runs"].split(", ") == classified
    assert f"apache-airflow>={said['Airflow'].partition(' ')[0]}" in project["dependencies"]
    assert {version for version in OLDER if not version.startswith("3.3.")} < set(said["Airflow"].split())
    assert f"pip install apache-airflow=={NEWEST} " in README.read_text()


# ---- custom adapters


def test_the_tutorial_s_test_of_the_example_passes(monkeypatch):
    monkeypatch.syspath_prepend(REPO / "example_dags")
    pure, on_this_machine = [block for block in PYTHON if block.page == CUSTOM]
    found: dict[str, Any] = {}
    exec(pure.text, found)
    found["test_two_workers_start_once_the_driver_listens"](monkeypatch)
    exec(on_this_machine.text, found)  # to run it takes a cluster; the example's own DAG does that


def test_the_tutorial_s_fields_and_attributes_are_those_that_there_are():
    assert [code(name) for name, _ in table(CUSTOM, "field")] == list(Launch.__dataclass_fields__)
    references = [code(name) for name, _ in table(CUSTOM, "reference")]
    assert references[: len(Here)] == [f"Here.{member.name}" for member in Here]
    rows = {code(name): code(default) for name, default, _ in table(CUSTOM, "attribute")}
    assert {name: ast.literal_eval(default) for name, default in rows.items()} == {
        name: getattr(Adapter, name) for name in Adapter.__annotations__
    }


@pytest.mark.parametrize("cls", [Role, Launch])
def test_the_tutorial_s_signatures_are_those_that_there_are(cls):
    (given,) = re.findall(rf"^`{cls.__name__}\((.*)\)`", CUSTOM.read_text(), re.MULTILINE)
    assert [argument.partition("=")[0] for argument in given.split(", ")] == list(cls.__dataclass_fields__)


def test_the_tutorial_s_entry_point_is_in_the_group_that_is_read():
    assert f'[project.entry-points."{ENTRY_POINT_GROUP}"]' in CUSTOM.read_text()
