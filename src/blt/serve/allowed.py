"""What a request may ask of the server; all else is refused with the field that is wrong."""

from __future__ import annotations

from dataclasses import dataclass

from blt.serve.asked import Asked
from blt.serve.errors import APIError
from blt.serve.service import Service


@dataclass(frozen=True)
class Allowed:
    """The model's name, and the server's limits."""

    service: Service

    def name(self, model: str | None) -> None:
        """Is the model of this name served?

        Raises:
            APIError: 404, it is not.
        """
        if model not in (None, self.service.name):
            message = f"no model of this name; there is {self.service.name}"
            raise APIError(404, message, param="model", code="model_not_found")

    def sizes(self, source: str, *sizes: int) -> None:
        """May texts of so many bytes be read?

        Args:
            source: the field that they are in.

        Raises:
            APIError: 422, one is too long.
        """
        longest, most = max(sizes, default=0), self.service.limits.prompt_bytes
        if longest > most:
            message = f"{source}: a text of {longest} bytes; at most {most} are read"
            raise APIError(422, message, param=source, code="context_length_exceeded")

    def asked(self, asked: Asked) -> None:
        """May so many texts, of so many bytes, be written?

        Raises:
            APIError: 422, too many, or too long.
        """
        limits = self.service.limits
        self.sizes(asked.source, *asked.sizes)
        choices = len(asked.prompts) * asked.n
        most = min(limits.choices, self.service.settings.max_queue)
        if not 0 < choices <= most:
            message = f"{choices} choices (prompts times n) in one request; 1 to {most} are written"
            param = asked.source if asked.n == 1 else "n"
            raise APIError(422, message, param=param, code="too_many_choices")
        if asked.request.most_bytes > limits.max_bytes:
            given, source = asked.request.most_bytes, asked.request.most_bytes_source
            message = f"{source} {given}; at most {limits.max_bytes} bytes are written"
            raise APIError(422, message, param=source, code="too_long")
