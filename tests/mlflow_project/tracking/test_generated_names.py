from __future__ import annotations

import pytest
from mlflow.utils.name_utils import _generate_random_name

from mlflow_project.tracking.generated_names import was_generated


def test_what_mlflow_makes_up_is_known() -> None:
    names = [name for name in (_generate_random_name() for _ in range(200)) if name.count("-") == 2]
    assert len(names) > 150
    assert all(map(was_generated, names))


@pytest.mark.parametrize("name", [None, "", "sft", "eval tiny", "stack-cube-3", "orderly-croc", "A-croc-9", "a-b-1"])
def test_what_a_person_has_chosen_is_not(name) -> None:
    assert not was_generated(name)
