"""Requests resolved to plans, for tests of what a request asks for and what is refused."""

from typing import Any

import pytest

from imbcil.harness.base.errors import BadInput
from imbcil.harness.request import RunRequest
from imbcil.harness.resolve import Plan, resolve_plans
from imbcil.harness.scenario_request import resolve_recipe


def plans(**request: Any) -> list[Plan]:
    asked = RunRequest.model_validate({"method": "icarl", "recipe": "quick", **request})
    return resolve_plans(asked, resolve_recipe(asked)[0])


def settings(**request: Any) -> Any:
    return plans(**request)[0].learner.cfg


def refused(**request: Any) -> str:
    with pytest.raises(BadInput) as refusal:
        plans(**request)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)
