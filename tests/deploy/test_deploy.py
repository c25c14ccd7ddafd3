"""Files to copy for clusters: what they start is what `torchrun` and `blt` understand.

The scripts run with stand-ins for the cluster's commands; nothing of Slurm or Kubernetes is here.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch.distributed.run import get_args_parser

import blt.serve.run
import blt.train.job
from blt import cli
from blt.serve.settings import Settings
from blt.train import Recipe

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SBATCH = DEPLOY / "slurm" / "train.sbatch"
RECIPE = "recipes/paper/blt-1b.toml"
# Writes its arguments as JSON, one command on a line.
RECORD = f"""#!{sys.executable}
import json, os, sys
with open(os.environ["RECORD"], "a") as file:
    file.write(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]) + "\\n")
"""


def manifests(name: str) -> dict[str, Any]:
    """The objects of a file, by kind."""
    found = yaml.safe_load_all((DEPLOY / "kubernetes" / name).read_text())
    return {entry["kind"]: entry for entry in found}


def executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH on which the cluster's commands only say how they were called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("srun", "torchrun", "scancel"):
        executable(folder / name, RECORD)
    executable(folder / "python", f'#!/bin/bash\nexec "{sys.executable}" "$@"\n')
    executable(folder / "scontrol", f'{RECORD}print("node7\\nnode8")\n')
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("RECORD", str(tmp_path / "record"))
    for name, value in {"ID": "42", "NODELIST": "node[7-8]", "NUM_NODES": "2"}.items():
        monkeypatch.setenv(f"SLURM_JOB_{name}", value)
    return folder


def recorded(name: str) -> list[list[str]]:
    path = Path(os.environ["RECORD"])
    calls = map(json.loads, path.read_text().splitlines() if path.exists() else [])
    return [call[1:] for call in calls if call[0] == name]


def understood(torchrun: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[Any, dict[str, Any]]:
    """What torchrun's own parser makes of its arguments, and `blt train` of those behind them."""
    options = get_args_parser().parse_args(torchrun)
    assert options.module
    arguments = [options.training_script, *options.training_script_args]
    arguments = [argument for argument in arguments if argument != "--"]
    assert arguments[:2] == ["blt", "train"]
    found: dict[str, Any] = {}

    def train(recipe: Recipe, run: Path, resume: bool, *_: object, **__: object) -> None:
        found.update(recipe=recipe, run=run, resume=resume)

    monkeypatch.setattr(blt.train.job, "train_recipe", train)
    monkeypatch.chdir(ROOT)
    assert cli.main(arguments[1:]) == 0
    return options, found


@pytest.mark.parametrize("held", [False, True])
def test_the_slurm_job_starts_blt_train_and_goes_on_with_a_run_that_is_there(
    held: bool, cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "runs" / "large"
    if held:
        run.mkdir(parents=True)
        (run / "recipe.toml").touch()
    command = ["bash", str(SBATCH), RECIPE, str(run), 'data.sources=["/shared/shards"]']
    subprocess.run(command, cwd=ROOT, check=True)
    ((kill_on_bad_exit, option, cpus, launcher, *arguments),) = recorded("srun")
    assert (kill_on_bad_exit, launcher) == ("--kill-on-bad-exit=1", "torchrun")
    assert (option, int(cpus) > 0) == ("--cpus-per-task", True)  # srun does not take sbatch's
    options, found = understood(arguments, monkeypatch)
    assert (options.nnodes, options.nproc_per_node) == ("2", "gpu")
    assert (options.rdzv_backend, options.rdzv_endpoint) == ("c10d", "node7:29500")
    assert options.rdzv_id == "42"
    assert found["recipe"].data.sources == ("/shared/shards",)
    assert (found["run"], found["resume"]) == (run, held)
    assert recorded("scontrol") == [["show", "hostnames", "node[7-8]"]]  # and no requeue


def test_the_slurm_job_says_how_it_is_used(cluster: Path) -> None:
    done = subprocess.run(["bash", str(SBATCH)], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "usage: sbatch" in done.stderr
    assert recorded("srun") == []


@pytest.mark.parametrize("status", [0, 1])
def test_before_the_time_limit_the_slurm_job_stops_the_training_and_queues_itself_again(
    status: int, cluster: Path, tmp_path: Path
) -> None:
    # srun: tells that it has begun, ends after scancel.
    ends = f'touch "{tmp_path}/begun"; until [ -e "{tmp_path}/told" ]; do sleep 0.01; done'
    executable(cluster / "srun", f"#!/bin/bash\n{ends}; exit {status}\n")
    executable(cluster / "scancel", f'{RECORD}open("{tmp_path}/told", "w")\n')
    job = subprocess.Popen(["bash", str(SBATCH), RECIPE, str(tmp_path / "run")], cwd=ROOT)
    while not (tmp_path / "begun").exists():
        assert job.poll() is None
    job.send_signal(10)  # SIGUSR1
    assert job.wait(timeout=60) == status
    assert recorded("scancel") == [["--signal=TERM", "42.0"]]
    again = ["requeue", "42"] in recorded("scontrol")
    assert again == (status != 0)  # a training that just ended is not queued again


@pytest.mark.parametrize(("index", "held"), [("0", False), ("1", True)])
def test_the_kubernetes_job_starts_blt_train_and_goes_on_with_a_run_that_is_there(
    index: str, held: bool, cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, service = manifests("train.yaml")["Job"], manifests("train.yaml")["Service"]
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    env = {entry["name"]: entry["value"] for entry in container["env"]}
    assert int(env["NODES"]) == job["spec"]["completions"] == job["spec"]["parallelism"]
    assert int(env["PROCESSES_PER_NODE"]) == container["resources"]["limits"]["nvidia.com/gpu"]
    recipe, run = env["RECIPE"].removeprefix("/opt/blt/"), tmp_path / "run"
    if held:
        run.mkdir()
        (run / "recipe.toml").touch()
    more = {"RECIPE": recipe, "RUN": str(run), "JOB_COMPLETION_INDEX": index}
    command = [*container["command"], *container["args"]]
    subprocess.run(command, env={**os.environ, **env, **more}, cwd=ROOT, check=True)
    (arguments,) = recorded("torchrun")
    options, found = understood(arguments, monkeypatch)
    assert (options.nnodes, options.nproc_per_node) == (env["NODES"], env["PROCESSES_PER_NODE"])
    assert options.rdzv_conf == f"is_host={int(index == '0')}"
    assert (found["run"], found["resume"]) == (run, held)
    # The first pod's name, as the headless service gives it, is where all meet.
    name, headless = job["metadata"]["name"], service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}
    assert (job["spec"]["completionMode"], pod["subdomain"]) == ("Indexed", headless)
    (port,) = service["spec"]["ports"]
    assert options.rdzv_endpoint == f"{name}-0.{headless}:{port['port']}"
    grace = int(env["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"])
    assert 30 < grace < pod["terminationGracePeriodSeconds"]


def test_the_kubernetes_job_fails_at_once_with_a_bad_recipe_and_only_then(
    cluster: Path, tmp_path: Path
) -> None:
    job = manifests("train.yaml")["Job"]["spec"]
    fails, ignored = job["podFailurePolicy"]["rules"]
    (container,) = job["template"]["spec"]["containers"]
    env = {entry["name"]: entry["value"] for entry in container["env"]}
    (tmp_path / "bad.toml").write_text('kind = "nonsense"\n')
    more = {"RECIPE": str(tmp_path / "bad.toml"), "JOB_COMPLETION_INDEX": "0"}
    command = [*container["command"], *container["args"]]
    done = subprocess.run(command, env={**os.environ, **env, **more}, cwd=ROOT, check=False)
    assert fails["action"] == "FailJob"
    assert fails["onExitCodes"]["containerName"] == container["name"]
    assert fails["onExitCodes"]["values"] == [done.returncode]
    assert recorded("torchrun") == []
    executable(
        cluster / "torchrun", "#!/bin/bash\nexit 1\n"
    )  # as it ends, whatever it started with
    more["RECIPE"] = RECIPE
    done = subprocess.run(command, env={**os.environ, **env, **more}, cwd=ROOT, check=False)
    assert done.returncode == 1
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # or the policy is refused
    assert ignored["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]


def test_the_kubernetes_volume_is_the_one_that_all_pods_mount() -> None:
    volume = manifests("volume.yaml")["PersistentVolumeClaim"]
    assert volume["spec"]["accessModes"] == ["ReadWriteMany"]
    job, deployment = manifests("train.yaml")["Job"], manifests("serve.yaml")["Deployment"]
    for workload in (job, deployment):
        volumes = workload["spec"]["template"]["spec"]["volumes"]
        (claim,) = (entry[kind] for entry in volumes for kind in entry if "Claim" in kind)
        assert claim["claimName"] == volume["metadata"]["name"]


def test_the_kubernetes_deployment_serves_on_the_pods_address_with_keys_from_a_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deployment, service = manifests("serve.yaml")["Deployment"], manifests("serve.yaml")["Service"]
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    found: dict[str, Any] = {}
    monkeypatch.setattr(
        blt.serve.run,
        "serve",
        lambda settings, host, port: found.update(settings=settings, host=host, port=port),
    )
    program, *arguments = container["args"]
    assert program == "blt"
    assert cli.main(arguments) == 0
    settings: Settings = found["settings"]
    assert (found["host"], found["port"]) == ("0.0.0.0", container["ports"][0]["containerPort"])
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert set(mounts.values()) == set(volumes)
    assert "secret" in volumes[mounts[str(Path(settings.keys).parent)]]
    assert settings.model.startswith("/srv/blt/")
    assert pod["terminationGracePeriodSeconds"] > settings.drain_seconds
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"] == labels
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"] == "/healthz"


def test_manifests_are_valid_kubernetes() -> None:
    validate = pytest.importorskip("kubernetes_validate").validate
    for name in ("train.yaml", "serve.yaml", "volume.yaml"):
        for manifest in manifests(name).values():
            validate(manifest, "1.31", strict=True)


def test_the_containerfile_copies_what_there_is_and_runs_as_nobody_special() -> None:
    lines = (DEPLOY / "Containerfile").read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for name in copied:
        assert (ROOT / name).exists()
        assert f"!{name}" in ignored
    assert "USER 1000" in lines
    comments = "\n".join(line[1:].strip() for line in lines if line.startswith("#"))
    examples = [line.split("#")[0] for line in comments.replace("\\\n", " ").splitlines()]
    built = {shlex.split(line)[5] for line in examples if line.startswith("docker build")}
    run = [shlex.split(line) for line in examples if line.startswith("docker run")]
    assert len(run) == 2
    for command in run:
        (image,) = built & set(command)
        serves = command[command.index(image) :][1:3] == ["blt", "serve"]
        assert ("--host" in command) == serves  # loopback is reached by nobody
        if serves:  # Docker must not kill what still drains
            stop = int(command[command.index("--stop-timeout") + 1])
            assert stop > int(command[command.index("--drain") + 1])
