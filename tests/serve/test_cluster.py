"""Replicas on Ray: what one of them answers, and what becomes of requests when one dies."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import socket
from dataclasses import fields
from pathlib import Path

import httpx
import pytest
import torch
from pydantic import ValidationError

from served import wait_until
from shapes import random_blt

BODY = {"prompt": "x", "max_tokens": 300, "temperature": 0, "ignore_eos": True}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_the_documentation_names_every_option_with_its_default() -> None:
    pytest.importorskip("ray")
    from blt.serve.cluster import Options

    text = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
    section = text.partition("# On a Ray cluster")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:3] for line in section.splitlines() if line.startswith("| `")]
    told = {
        name.strip(" `"): value.strip(" `")
        for names, values in rows
        for name, value in zip(names.split(","), values.split(","), strict=True)
    }
    defaults = {name: field.default for name, field in Options.model_fields.items()}
    shown = {"": '""', "()": "[]", "None": "none"}
    expected = {name: f"{value:g}" if isinstance(value, float) else str(value)
                for name, value in defaults.items()}  # fmt: skip
    assert told == {name: shown.get(value, value) for name, value in expected.items()}


def test_every_option_of_the_model_is_one_on_a_cluster_too() -> None:
    pytest.importorskip("ray")
    from blt.serve.cluster import Options
    from blt.serve.settings import Settings

    alone = {"host", "limits", "max_connections", "max_per_address"}  # Ray listens
    renamed = {"max_batch": "batch", "max_queue": "queue", "drain_seconds": "drain"}
    renamed |= {"memory_budget": "gpus"}
    names = {renamed.get(field.name, field.name) for field in fields(Settings)} - alone
    assert names <= Options.model_fields.keys()
    asked = {"model": "m", "adapter": "a", "threshold": 1.5, "calibrate_on": "t", "template": "x"}
    settings = vars(Options(**asked, target_patch_size=4).settings())
    assert {name: settings[name] for name in asked} == asked
    assert settings["target_patch_size"] == 4


def test_an_impossible_option_is_refused_before_anything_is_deployed() -> None:
    pytest.importorskip("ray")
    from blt.errors import UserError
    from blt.serve.cluster import Options, build

    with pytest.raises(UserError, match="choose one"):
        build(Options(threshold=1.0, target_patch_size=4.0))
    with pytest.raises(UserError, match="needs text to find θ on"):
        build(Options(target_patch_size=4.0))
    with pytest.raises(UserError, match="cors_origins"):
        build(Options(cors_origins=("site.example",)))
    for wrong in ({"precision": "fp16"}, {"gpus": 1, "device": "cuda:1"}):
        with pytest.raises(ValidationError, match=next(iter(wrong.keys() - {"gpus"}))):
            Options(**wrong)


def test_a_replica_is_on_a_gpu_exactly_where_ray_gives_it_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("ray")
    from blt.errors import UserError
    from blt.serve import cluster
    from blt.serve.cluster import Options, build

    assert Options().place() == "cpu"
    assert Options(gpus=1).place() == "cuda"
    assert Options(gpus=1, device="cuda:0").place() == "cuda:0"
    for wrong in (Options(device="cuda"), Options(device="cpu", gpus=1)):
        with pytest.raises(UserError, match=r"device: .* gpus=1 and device=cuda"):
            build(wrong)
    monkeypatch.setattr(cluster, "cache_memory", lambda device, share: int(share * 100))
    assert Options(gpus=0.25).budget(torch.device("cuda")) == 25  # four share one
    assert Options(gpus=1).budget(torch.device("cuda")) is None


@pytest.mark.slow
def test_two_replicas_and_one_killed_under_load(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    from ray import serve

    from blt.serve.cluster import Options, build

    lm = random_blt()
    lm.save(tmp_path / "tiny")
    expected = lm.generate("x", max_bytes=300, ignore_eos=True, valid_utf8=True).text
    port = free_port()
    source = str(Path(__file__).parents[2] / "src")
    ray.init(num_cpus=4, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": source}})
    try:
        serve.start(http_options={"port": port, "location": "HeadOnly"})
        options = Options(model=str(tmp_path / "tiny"), min_replicas=2, max_replicas=2, batch=4)
        serve.run(build(options), name="blt")
        url = f"http://127.0.0.1:{port}"

        def ask(_: int) -> int:
            try:
                answer = httpx.post(f"{url}/v1/completions", json=BODY, timeout=120)
            except httpx.TransportError:
                return 0
            if answer.status_code == 200:
                assert answer.json()["choices"][0]["text"] == expected
            return answer.status_code

        pids = replica_pids()
        assert len(pids) == 2
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = [pool.submit(ask, index) for index in range(80)]
            wait_until(lambda: sum(answer.done() for answer in answers) >= 16, 120)
            os.kill(pids[0], signal.SIGKILL)
            statuses = [answer.result() for answer in answers]
        lost = [status for status in statuses if status != 200]
        assert len(lost) <= 8, statuses  # what the killed one was writing; told, not hanging
        assert all(status >= 500 for status in lost), statuses
        assert ask(0) == 200
        assert wait_until(lambda: len(set(replica_pids()) - {pids[0]}) == 2, 120)
        assert ask(0) == 200
    finally:
        serve.shutdown()
        ray.shutdown()


def replica_pids() -> list[int]:
    """Ray names its processes after what they are."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"ServeReplica:blt:" in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:  # it has just ended
            continue
    return found
