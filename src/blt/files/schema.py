"""What JSON files of this library hold, as types with ranges: a wrong one is named by its key."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from blt.errors import UserError, require
from blt.files.configs import first_error


def _inside(name: str) -> str:
    path = PurePath(name)
    plain = path.parts and ".." not in path.parts and not path.is_absolute() and "\0" not in name
    require(bool(plain), "must be the name of a file in the folder")
    return name


Count = Annotated[int, Field(ge=0, le=2**60)]  # fits in 64 bits, with room to count on
Amount = Annotated[float, Field(ge=0, le=1e30)]  # seconds, FLOPs
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Inside = Annotated[str, AfterValidator(_inside)]  # a relative path


class Schema(BaseModel):
    """An object of JSON; keys that it does not name may come with later versions."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

    @classmethod
    def check(cls, data: Any, where: str) -> None:
        """Refuse another type, or a value that there cannot be.

        Raises:
            UserError: opens with ``where``, and names the key.
        """
        try:
            cls.model_validate(data)
        except ValidationError as error:
            raise UserError(f"{where}: {first_error(error)}") from None
