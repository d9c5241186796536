"""Results of the Open ASR Leaderboard in the form in which the Hub reads them from a model's repository."""

import datetime
from typing import Any

from flax_distil.evaluation.leaderboard.sets import BENCHMARK, GROUPS, SETS, SHORT_FORM

EVAL_RESULTS_PATH = ".eval_results/open_asr_leaderboard.yaml"
"""Where the file belongs in a model's repository."""


def eval_results(figures: dict[str, Any], *, source_url: str | None) -> str | None:
    """Return the text of a model's file; None if no English short-form set was measured in whole.

    A set stands there only if it was measured in whole, the mean and the RTFx if all were.

    Args:
        figures: Of the model, from :func:`leaderboard_figures`.
        source_url: Address of the model.

    Source: ``EvalResultEntry`` of huggingface_hub; https://huggingface.co/docs/hub/eval-results.
    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
    from huggingface_hub.utils import yaml_dump

    group = figures["groups"].get(SHORT_FORM)
    if group is None:
        return None
    values: dict[str, tuple[float, str | None]] = {}
    if not group["incomplete"]:
        values = {"mean_wer": (group["mean_wer"], None), "rtfx": (group["rtfx"], None)}
    for name in GROUPS[SHORT_FORM]:
        found, task = figures["sets"].get(name), SETS[name].task
        if found is not None and task is not None and name not in group["incomplete"]:
            values[task] = (found["wer"], f"{SETS[name].dataset}, {SETS[name].config}, {SETS[name].split}")
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    entries = [
        EvalResultEntry(
            dataset_id=BENCHMARK,
            task_id=task,
            value=round(value, 2),
            date=date,
            source_url=source_url,
            notes=notes,
        )
        for task, (value, notes) in values.items()
    ]
    if not entries:
        return None
    return str(yaml_dump(eval_result_entries_to_yaml(entries)))
