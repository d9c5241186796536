"""Every recipe is compiled by the planner at the size of its real models."""

import contextlib
import io
import json

import pytest

from flax_distil.cli.main import main
from flax_distil.cli.recipes import recipe_names

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_fits_on_a_v4_8_and_its_length_is_known(name, tmp_path):
    path = tmp_path / "plan.json"
    flags = ["--topology=v4-8", "--search_seconds=0", "--price_per_chip_hour=1", f"--json={path}"]
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(["plan", f"--config=recipe:{name}", *flags]) == 0
    figures = json.loads(path.read_text())
    assert figures["fits"] is True
    assert figures["estimated_cost"] == pytest.approx(4 * figures["estimated_hours"])
