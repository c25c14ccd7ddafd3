"""``blt push``: a model folder on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional

from blt.cli.output import say


def push(
    folder: Positional[Path],
    repository: Positional[str],
    /,
    *,
    public: bool = False,
    license: str | None = None,
) -> None:
    """Upload a model folder to the Hugging Face hub, with a card; log in with `hf auth login`.

    Args:
        folder: Model folder in any layout; its README.md, if there is one, is the card.
        repository: Where to, such as me/my-blt.
        public: Everybody may see it.
        license: For the card, such as apache-2.0.
    """
    from blt.checkpoint.push import push_to_hub

    say(push_to_hub(folder, repository, private=not public, license=license))
