"""A page of another site must not reach this server, whatever its name leads to."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blt.errors import UserError
from blt.serve.hosts import Hosts
from blt.serve.settings import Settings
from served import Served, serving

REBOUND = {"Host": "evil.example:8000"}
NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,9}(\.[a-z]{2,5}){0,2}\.?(:[0-9]{1,5})?", fullmatch=True)


def ask(served: Served, method: str = "GET", path: str = "/v1/models", **headers: str) -> int:
    body = {"json": {"text": "x"}} if method == "POST" else {}
    answer = httpx.request(method, served.url + path, headers=headers, **body)  # type: ignore[arg-type]
    if answer.status_code in (403, 421):
        assert answer.json()["error"]["code"] in ("foreign_origin", "unknown_host")
    return answer.status_code


def test_a_name_that_was_made_to_lead_here_is_not_answered(served: Served) -> None:
    for path in ("/", "/openapi.json", "/v1/models", "/metrics", "/page/main.js", "/nonsense"):
        answer = httpx.get(served.url + path, headers=REBOUND)
        assert answer.status_code == 421
        assert "--allowed-host" in answer.json()["error"]["message"]
    score = httpx.post(f"{served.url}/v1/score", json={"text": "x"}, headers=REBOUND)
    assert score.status_code == 421
    assert httpx.get(f"{served.url}/healthz", headers=REBOUND).status_code == 200  # for probes


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:1", "localhost.", "a.localhost:80", "127.0.0.1", "127.9.8.7:8000",
     "[::1]:8000", "10.1.2.3:8000", "[2001:db8::7]"],
)  # fmt: skip
def test_this_machine_and_addresses_are_known(served: Served, host: str) -> None:
    """Addresses too: a probe of Kubernetes asks for the pod's, and none can be made to lie."""
    assert ask(served, Host=host) == 200


@pytest.mark.parametrize(
    "host",
    ["localhost.evil.example", "127.0.0.1.evil.example", "evil.example@localhost", "evil/localhost",
     "localhost:80:80", "[localhost]", "[::1", "::1", "", "localhost evil", "evil-localhost", "."],
)  # fmt: skip
def test_what_only_looks_like_this_machine_is_not(served: Served, host: str) -> None:
    assert not Hosts.of(Settings()).knows(host)


@given(NAMES)
def test_a_name_is_known_only_if_it_was_given(name: str) -> None:
    bare = name.partition(":")[0].removesuffix(".")
    if bare != "localhost" and not bare.endswith(".localhost"):
        assert not Hosts.of(Settings()).knows(name)
        assert not Hosts.of(Settings(allowed_hosts=(f"x{bare}",))).knows(name)
    assert Hosts.of(Settings(allowed_hosts=(bare,))).knows(name)
    assert Hosts.of(Settings(host=bare)).knows(name.upper())
    assert Hosts.of(Settings(allowed_hosts=("*",))).knows(name)


def test_with_keys_any_name_will_do_unless_some_are_given(tmp_path: Path) -> None:
    """As behind a Service of Kubernetes, or a proxy: a foreign page has no key."""
    (tmp_path / "keys").write_text("secret")
    key = {"Authorization": "Bearer secret"}
    with serving(Settings("tiny", keys=str(tmp_path / "keys"))) as server:
        assert ask(server, Host="blt:8000", **key) == 200
        assert ask(server, Host="blt:8000") == 401
    named = Settings("tiny", keys=str(tmp_path / "keys"), allowed_hosts=("blt",))
    with serving(named) as server:
        assert ask(server, Host="blt:8000", **key) == 200
        assert ask(server, Host="other:8000", **key) == 421


def test_other_sites_may_have_nothing_done_unless_they_are_named(served: Served) -> None:
    own = served.url
    score = {"method": "POST", "path": "/v1/score"}
    assert ask(served, **score, Origin=own) == 200
    assert ask(served, **score) == 200  # no browser
    assert ask(served, Origin="https://a.example") == 200  # but a browser keeps it from the page
    for origin in ("https://a.example", "null", "http://localhost:1", f"{own}.a.example", "x"):
        assert ask(served, **score, Origin=origin) == 403
    answer = httpx.post(f"{own}/v1/score", json={}, headers={"Origin": "https://a.example"})
    assert "--cors-origin https://a.example" in answer.json()["error"]["message"]
    with serving(Settings("tiny", cors_origins=("https://a.example",))) as server:
        assert ask(server, **score, Origin="https://a.example") == 200
        assert ask(server, **score, Origin="https://b.example") == 403
    with serving(Settings("tiny", cors_origins=("*",))) as server:
        assert ask(server, **score, Origin="https://b.example") == 200


def test_behind_a_proxy_that_passes_the_host_on_the_page_is_its_own() -> None:
    with serving(Settings("tiny", allowed_hosts=("bytes.example",))) as server:
        public = {"Host": "bytes.example", "Origin": "https://bytes.example"}
        assert ask(server, "POST", "/v1/score", **public) == 200


@pytest.mark.parametrize(
    "host", ["https://a.example", "a.example:80", "A.example", "*.a", "", "::1"]
)
def test_a_host_that_is_none_is_refused_at_the_start(host: str) -> None:
    with pytest.raises(UserError, match="allowed_hosts: "):
        Settings(allowed_hosts=("a.example", "192.0.2.7", "[::1]", "*", host))
