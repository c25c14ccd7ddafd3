"""Verbs that let a model write: here, or for clients."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Literal

from tyro.conf import Positional, UseAppendAction

from blt.cli.options import check_options
from blt.errors import UserError, how_to_install, require_whole


def generate(
    prompt: Positional[tuple[str, ...]] = (),
    /,
    *,
    model: Path | None = None,
    prompts: Path | None = None,
    max_bytes: int = 256,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float = 1.0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    seed: int = 0,
    stop: UseAppendAction[tuple[str, ...]] = (),
    valid_utf8: bool = False,
    precision: str | None = None,
    draft_bytes: int = 0,
    batch: int = 16,
    show_patches: bool = False,
    raw: bool = False,
    json: bool = False,
    stats: bool = False,
) -> None:
    """Let a model continue a prompt.

    Args:
        prompt: Text to continue, in quotes; several are continued each on its own, as those of
            --prompts; "-" reads one from a pipe.
        model: Model folder, such as RUN/checkpoint, instead of the model inside the package.
        prompts: File with a prompt on each line, instead; "-" reads a pipe.
        max_bytes: How many bytes to write at most.
        temperature: 0 always takes the most likely byte; higher is more varied.
        top_k: Choose among the k most likely bytes only.
        top_p: Choose among the likeliest bytes that have this probability together.
        min_p: Choose among bytes at least this likely, relative to the likeliest.
        repetition_penalty: Above 1 makes what occurs in the text less likely.
        seed: The same seed writes the same text; prompt i has seed + i.
        stop: End before this string; may be given several times. A newline is $'\\n' in bash.
        valid_utf8: Never write bytes that cannot become valid UTF-8.
        precision: Of the weights: float32, bfloat16 or int8. Left out: as the model is.
        draft_bytes: Self-speculation: guess so many bytes at once, then verify them together.
        batch: How many prompts are continued at the same time.
        show_patches: Colour patches as they form, those of the prompt first.
        raw: Write the bytes as they are, also where they are not valid UTF-8; for one prompt.
        json: Write one JSON object per prompt on a line, with log-probabilities and patches.
        stats: Say on standard error how fast it was, and how large patches were.
    """
    from blt.checkpoint.pretrained import PRETRAINED
    from blt.generate import Engine, Sampling
    from blt.lm import load
    from blt.views import stream

    if show_patches + raw + json > 1:
        raise UserError("choose one of --show-patches, --raw and --json")
    texts = _read_prompts(prompt, prompts)
    if raw and len(texts) != 1:
        raise UserError("--raw is for one prompt; --json has the bytes of several, in base64")
    if batch < 1:
        raise UserError(f"--batch must be at least 1, got {batch}")
    sampling = Sampling(
        max_bytes=max_bytes,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
        stop=tuple(os.fsencode(s) for s in stop),
        valid_utf8=valid_utf8,
    )
    lm = load(model or PRETRAINED)
    engine = Engine(
        lm,
        max_batch=min(batch, max(1, len(texts))),
        max_queue=max(1, len(texts)),
        precision=precision,  # type: ignore[arg-type]
        draft_bytes=draft_bytes,
    )
    writers = {"show_patches": show_patches, "raw": raw, "json": json}
    chosen = next((name for name, wanted in writers.items() if wanted), "text")
    writer: stream.Writer = {
        "show_patches": stream.patches_of(lm),
        "raw": stream.write_raw,
        "json": stream.write_json,
        "text": stream.write_text,
    }[chosen]
    if len(texts) > 1 and not json:
        writer = stream.headed(writer)
    clock = stream.Clock(engine)
    stream.write_all(engine, texts, sampling, clock.watch(writer))
    if stats:
        print(clock.line(), file=sys.stderr)


def serve(
    model: Positional[str] = "pretrained",
    /,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    name: str = "",
    keys: str = "",
    allowed_host: UseAppendAction[tuple[str, ...]] = (),
    cors_origin: UseAppendAction[tuple[str, ...]] = (),
    batch: int = 16,
    queue: int = 256,
    memory_mb: int = 4096,
    precision: Literal["float32", "bfloat16", "int8"] | None = None,
    draft_bytes: int = 0,
    timeout: float = 300.0,
    drain: float = 60.0,
    max_prompt: int = 32768,
    max_bytes: int = 8192,
    max_choices: int = 64,
    max_body: int = 2097152,
    max_connections: int = 1024,
    max_per_address: int = 512,
) -> None:
    """Serve a model over HTTP, to OpenAI's clients and to browsers.

    Args:
        model: Model folder, such as RUN/checkpoint; left out: the model inside the package.
        host: Address to listen on; 0.0.0.0 for the whole network (give --keys then).
        port: 0 takes a free one.
        name: Of the model, for clients; left out: that of its folder.
        keys: File with one API key per line, read again when it changes; left out: everybody is
            served.
        allowed_host: A name that requests may call this server by, such as blt.example; may be
            given several times, * for any. Left out: with --keys any, else localhost, addresses
            and --host.
        cors_origin: A web site whose scripts may call, such as https://site.example; may be given
            several times.
        batch: How many texts are written at the same time.
        queue: How many may wait; more are told 429.
        memory_mb: Megabytes for caches of texts.
        precision: Of the weights: float32, bfloat16 or int8. Left out: as the model is.
        draft_bytes: Self-speculation, where a request says nothing.
        timeout: Seconds that a request may take.
        drain: Seconds that accepted requests get after SIGTERM.
        max_prompt: Bytes of a prompt, or of a text to score or cut.
        max_bytes: Bytes that may be written for a choice.
        max_choices: Choices of one request.
        max_body: Bytes of an HTTP body.
        max_connections: Requests in progress; as many connections may wait beside them.
        max_per_address: Of these, from one address; behind a proxy all have the proxy's.
    """
    try:
        from blt.serve.run import serve as run
        from blt.serve.settings import Limits, Settings, require_host, require_origin
    except ImportError as error:
        raise UserError(f"{error}; blt serve needs: {how_to_install('serve')}") from None

    counts = {"batch": batch, "queue": queue, "memory-mb": memory_mb, "max-prompt": max_prompt,
              "max-bytes": max_bytes, "max-choices": max_choices, "max-body": max_body,
              "max-connections": max_connections, "max-per-address": max_per_address}  # fmt: skip
    check_options(counts, {"timeout": timeout, "drain": drain})
    require_whole("--draft-bytes", draft_bytes, 0)
    for origin in cors_origin:
        require_origin("--cors-origin", origin)
    for allowed in allowed_host:
        require_host("--allowed-host", allowed)
    limits = Limits(
        body_bytes=max_body,
        prompt_bytes=max_prompt,
        max_bytes=max_bytes,
        choices=max_choices,
        timeout=timeout,
    )
    settings = Settings(
        model,
        name=name,
        max_batch=batch,
        max_queue=queue,
        memory_budget=memory_mb * 2**20,
        precision=precision,
        draft_bytes=draft_bytes,
        keys=keys,
        allowed_hosts=allowed_host,
        cors_origins=cors_origin,
        max_connections=max_connections,
        max_per_address=max_per_address,
        drain_seconds=drain,
        limits=limits,
    )
    run(settings, host, port)


def _read_prompts(prompts: tuple[str, ...], file: Path | None) -> list[bytes]:
    """The prompts to continue, from the one place that was named."""
    if file is not None and any(prompts):
        raise UserError("both a prompt and --prompts are given; choose one")
    if file is not None:
        return (_read_pipe() if str(file) == "-" else file.read_bytes()).splitlines()
    for prompt in prompts:
        if (Path(prompt) / "config.json").is_file():
            way_out = f'try: blt generate "text" --model {prompt}'
            raise UserError(f"{prompt}: is a model folder; {way_out}")
    if prompts.count("-") > 1:
        raise UserError('"-" reads the pipe to its end, so it can be only one of the prompts')
    return [_read_pipe() if p == "-" else os.fsencode(p) for p in prompts or ("",)]


def _read_pipe() -> bytes:
    return sys.stdin.buffer.read()
