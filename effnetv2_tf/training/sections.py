"""What the typed sections of YAML files have in common."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

PositiveInt = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """Base of the sections: unknown keys are errors, values are not converted silently."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value(cls, value: Any, info: ValidationInfo) -> Any:
        # Pydantic would take true for 1.
        field = cls.model_fields[info.field_name or ""]
        if isinstance(value, bool) and field.annotation not in (bool, bool | None):
            raise ValueError(f"expected another type than true or false, received {value}")
        return value
