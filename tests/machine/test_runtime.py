"""Threads wait without spinning, and are as many as there are processors for them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blt.machine import runtime


def settings(monkeypatch: pytest.MonkeyPatch, **own: str) -> dict[str, str | None]:
    """What the environment says of threads after ``import blt``, by a user who set ``own``."""
    for name in (*runtime.WAITING, runtime.THREADS, "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "")  # restored afterwards, also where it is not set
        monkeypatch.delenv(name)
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    runtime.prepare_threads()
    return {name: os.environ.get(name) for name in (*runtime.WAITING, runtime.THREADS)}


def test_threads_sleep_while_they_wait_unless_the_user_says_how(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert settings(monkeypatch)["OMP_WAIT_POLICY"] == "PASSIVE"
    assert settings(monkeypatch, OMP_WAIT_POLICY="ACTIVE")["OMP_WAIT_POLICY"] == "ACTIVE"
    for name in ("GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        kept = settings(monkeypatch, **{name: "7"})
        assert (kept[name], kept["OMP_WAIT_POLICY"]) == ("7", None)


def test_the_settings_are_there_before_openmp_reads_them() -> None:
    """Whatever of ours is imported first: OpenMP tells what it has read when it starts."""
    env = {name: value for name, value in os.environ.items() if name not in runtime.WAITING}
    done = subprocess.run(
        [sys.executable, "-c", "import blt.train"],
        env={**env, "OMP_DISPLAY_ENV": "VERBOSE"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr
    assert "GOMP_SPINCOUNT = '0'" in done.stderr


@pytest.mark.parametrize(
    ("seen", "quotas", "processes", "threads"),
    [
        (8, [], None, None),  # PyTorch's own count
        (8, [2.0], None, "2"),
        (8, [6.0, 2.9], None, "2"),
        (8, [0.5], None, "1"),
        (2, [64.0], None, None),
        (8, [], "4", "2"),
        (8, [6.0], "4", "1"),
        (2, [], "4", "1"),
    ],
)
def test_threads_are_as_many_as_affinity_quota_and_processes_beside_leave(
    seen: int,
    quotas: list[float],
    processes: str | None,
    threads: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(seen)))
    monkeypatch.setattr(runtime, "_quotas", lambda: iter(quotas))
    beside = {} if processes is None else {"LOCAL_WORLD_SIZE": processes}
    assert settings(monkeypatch, **beside)["OMP_NUM_THREADS"] == threads
    assert settings(monkeypatch, **beside, OMP_NUM_THREADS="5")["OMP_NUM_THREADS"] == "5"


@pytest.mark.parametrize("inside", [False, True])  # a container, where the root is its group
@pytest.mark.parametrize("version", [1, 2])
def test_the_quota_of_a_container_is_found(version: int, inside: bool, tmp_path: Path) -> None:
    own, mount = tmp_path / "cgroup", tmp_path / "fs"
    own.write_text("4:memory:/m\n3:cpu,cpuacct:/a/b\n" if version == 1 else "0::/a/b\n")
    root = mount / "cpu" if version == 1 else mount
    group = root if inside else root / "a"  # a limit above holds too
    group.mkdir(parents=True)
    (root / "a" / "b").mkdir(parents=True, exist_ok=True)
    if version == 1:
        (group / "cpu.cfs_quota_us").write_text("150000\n")
        (group / "cpu.cfs_period_us").write_text("100000\n")
        (root / "a" / "b" / "cpu.cfs_quota_us").write_text("-1\n")
        (root / "a" / "b" / "cpu.cfs_period_us").write_text("100000\n")
    else:
        (group / "cpu.max").write_text("150000 100000\n")
        (root / "a" / "b" / "cpu.max").write_text("max 100000\n")
    assert list(runtime._quotas(own, mount)) == [1.5]
    assert list(runtime._quotas(tmp_path / "none", mount)) == []


@given(st.text(alphabet="0:/a,cpu\n .max-", max_size=40))
def test_whatever_the_system_says_of_groups_is_no_error(text: str) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Path, "is_file", lambda self: True)
        patched.setattr(Path, "read_text", lambda self: text)
        assert all(quota > 0 for quota in runtime._quotas())
