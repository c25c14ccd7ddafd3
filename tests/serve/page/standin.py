"""A stand-in for `blt serve`: what the page needs of the API, with the real library behind it."""

from __future__ import annotations

import base64
import json
import math
import mimetypes
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any

import torch

from blt import vocab
from blt.cutting import Cutter
from blt.generate import Engine, Sampling
from blt.lm import BLT
from blt.model.packing import Spans

PAGE = files("blt") / "serve" / "page"
NAME = "blt-pretrained"


class Answers:
    """What each address answers."""

    def __init__(self, lm: BLT) -> None:
        self.lm = lm

    def models(self) -> dict[str, Any]:
        rule = self.lm.config.patching
        model = {"id": NAME, "kind": "blt", "rule": rule.rule, "threshold": rule.threshold}
        return {"object": "list", "data": [model]}

    def patches(self, data: bytes) -> dict[str, Any]:
        cut = Cutter(self.lm.config.patching, self.lm.entropy_model).cut(data)
        model = {"rule": "model", "starts": cut.starts, "mean_size": cut.mean_size}
        return {
            "bytes": len(data),
            "entropies": cut.entropies,
            "surprise": self._surprise(data),
            "patches": [model],
        }

    @torch.no_grad()
    def _surprise(self, data: bytes) -> list[float]:
        ids = vocab.encode(data)
        logits = self.lm.entropy_model(ids, Spans.from_lengths([len(ids)], ids.device))
        return self._bits(logits, ids)

    @staticmethod
    def _bits(logits: torch.Tensor, ids: torch.Tensor) -> list[float]:
        nats = -logits[:-1].float().log_softmax(-1).gather(1, ids[1:, None]).flatten()
        return (nats / math.log(2)).tolist()

    def score(self, data: bytes) -> dict[str, Any]:
        ids = vocab.encode(data)
        bits = self._bits(self.lm.logits(ids), ids)
        patches = len(Cutter(self.lm.config.patching, self.lm.entropy_model).cut(data).lengths)
        return {
            "bytes": len(data),
            "bits": bits,
            "bits_per_byte": sum(bits) / max(1, len(data)),
            "patches": patches,
        }

    def chunks(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """A chunk for each round of the engine; what became of drafts follows from its counts."""
        engine = Engine(self.lm, draft_bytes=body.get("draft_bytes", 0))
        sampling = Sampling(
            max_bytes=body["max_tokens"], temperature=body["temperature"], seed=body["seed"]
        )
        request = engine.submit(body["prompt"], sampling)._request
        before = (0, 0, 0)
        while engine.step() or len(request.data) > before[0]:
            now = (len(request.data), request.drafted, request.accepted)
            count, drafted, accepted = (b - a for a, b in zip(before, now, strict=True))
            fates: list[str | None] = ["accepted"] * accepted
            fates += ["rejected-replacement"] * (drafted > accepted)
            fates += [None] * (count - len(fates))
            yield self._chunk(body["prompt"], request, before[0], fates[:count])
            before = now

    def _chunk(self, prompt: str, request: Any, first: int, drafted: list[Any]) -> dict[str, Any]:
        new = bytes(request.data[first:])
        text = vocab.to_bytes(prompt) + bytes(request.data)
        log_p = self.lm.logits(vocab.encode(text))[-1 - len(new) : -1].log_softmax(-1)
        best = log_p[:, vocab.OFFSET :].topk(5)
        top = [list(zip(i.tolist(), p.tolist(), strict=True)) for p, i in zip(*best, strict=True)]
        extension = {
            "bytes": base64.b64encode(new).decode(),
            "starts": request.starts[first:],
            "logprobs": request.logprobs[first:],
            "top": top,
            "drafted": drafted,
        }
        return {"choices": [{"index": 0, "text": new.decode("utf-8", "replace"), "blt": extension}]}


class Handler(BaseHTTPRequestHandler):
    """The addresses, and the page's files with the headers that the server sends."""

    answers: Answers

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            return self._json(self.answers.models())
        name = "index.html" if self.path == "/" else self.path.removeprefix("/page/")
        file = PAGE / name
        if "/" in name or not file.is_file():
            return self._json({"error": {"message": f"{self.path}: not found"}}, 404)
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        self._send(file.read_bytes(), kind)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/v1/completions":
            return self._stream(body)
        data = base64.b64decode(body["bytes"])
        route = {"/v1/patches": self.answers.patches, "/v1/score": self.answers.score}
        self._json(route[self.path](data))

    def _stream(self, body: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for chunk in self.answers.chunks(body):
            try:
                self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
            except OSError:  # the reader has left
                return
        self.wfile.write(b"data: [DONE]\n\n")

    def _json(self, answer: dict[str, Any], status: int = 200) -> None:
        self._send(json.dumps(answer).encode(), "application/json", status)

    def _send(self, body: bytes, kind: str, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Security-Policy", "default-src 'self'")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def standin(lm: BLT) -> ThreadingHTTPServer:
    """Ready to ``serve_forever``; its address is ``server_address``."""
    handler = type("Handler", (Handler,), {"answers": Answers(lm)})
    return ThreadingHTTPServer(("127.0.0.1", 0), handler)
