"""The base of all sections of the schema (no defaults, no unknown keys), and the small types that they share."""

from typing import Annotated

from pydantic import AnyHttpUrl, BaseModel, ConfigDict, Field

from stages.lib.command import DistilleryError


class ParamsError(DistilleryError):
    """params.yaml does not match the schema."""


class Section(BaseModel):
    """A mapping of params.yaml: unknown keys and wrong types are errors.

    Only a field that is absent without its reader (``run.embedded`` without an embedded model) has a default: None.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


def holds_no_secret(text: str) -> str:
    """A server's address without anything that must stay secret; ValueError otherwise."""
    url = AnyHttpUrl(text)
    if url.username or url.password or url.query:
        raise ValueError("a base_url is stored and shown, so it must not have a user, password or query. Use API_KEY")
    return text


Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Text = Annotated[str, Field(min_length=1)]
FilePath = Annotated[str, Field(min_length=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
