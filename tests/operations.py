"""What a piece of code does, counted: on a GPU each operation is a launch."""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

VIEWS = (
    *("view", "slice", "select.int", "squeeze", "transpose", "aten.t.", "permute", "expand"),
    *("split", "unbind", "unfold", "detach", "alias", "as_strided", "view_as", "narrow", "empty"),
)


class Operations(TorchDispatchMode):
    """Counts operations by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))

    @property
    def launches(self) -> int:
        """Operations that do something."""
        return sum(n for name, n in self.counts.items() if not any(v in name for v in VIEWS))
