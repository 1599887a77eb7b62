"""The base of every config model, and validation errors as one sentence."""

from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, ValidationError, model_serializer
from pydantic_core import ErrorDetails

from imbcil.harness.base.errors import BadInput, did_you_mean


class Frozen(BaseModel):
    """A config that cannot change after it was read and refuses keys that it does not know.

    `places`: fields that say where a file lies, which is no part of a run's identity; its content has a field of its own.
    `unwritten`: fields that are not written out at their default. A field that came later stands here, so that what was
    run before it existed keeps its identity.
    """

    places: ClassVar[frozenset[str]] = frozenset()
    unwritten: ClassVar[frozenset[str]] = frozenset()
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_serializer(mode="wrap")
    def _without_idle_fields(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        idle = {name for name in self.unwritten if getattr(self, name) == fields[name].default}
        return {name: value for name, value in content.items() if name not in idle}


Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], data: Mapping[str, Any], where: str) -> Model:
    """Read `data` as `model`. `where` (a file, a flag, a learner's name) leads the error's sentence.

    Raises BadInput that names the first wrong key, its value and what is allowed there.
    """
    try:
        return model.model_validate(dict(data))
    except ValidationError as error:
        unknown_first = sorted(error.errors(), key=lambda detail: detail["type"] != "extra_forbidden")
        raise BadInput(f"{where}: {_sentence(unknown_first[0], model)}") from None


def _sentence(detail: ErrorDetails, model: type[BaseModel]) -> str:
    path = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        known = sorted(_fields_at(model, detail["loc"][:-1]))
        return f"unknown key {path!r}; {did_you_mean(str(detail['loc'][-1]), known)}."
    if detail["type"] == "missing":
        return f"the key {path!r} is missing."
    message = detail["msg"].removeprefix("Value error, ")
    value = detail["input"]  # of a rule between keys it is the whole section, which tells nobody anything
    subject = f"{path}: " if isinstance(value, Mapping | BaseModel) else f"{path} = {value!r}: "
    subject = subject if path else ""
    return f"{subject}{message[:1].lower()}{message[1:]}".rstrip(".") + "."


def _fields_at(model: type[BaseModel], location: tuple[int | str, ...]) -> set[str]:
    """Names of the keys that the model nested at `location` knows (the outermost ones if unsure)."""
    current: Any = model
    for part in location:
        field = getattr(current, "model_fields", {}).get(part)
        nested = [a for a in _arguments(field.annotation) if hasattr(a, "model_fields")] if field else []
        if not nested:
            return set(model.model_fields)
        current = nested[0]
    return set(current.model_fields)


def _arguments(annotation: Any) -> list[Any]:
    return [annotation, *getattr(annotation, "__args__", ())]
