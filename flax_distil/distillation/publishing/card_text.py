"""The text of a model card, section by section; a section of which nothing is known is left out."""

from collections.abc import Mapping, Sequence
from typing import Any

from flax_distil.checkpoints.hub.cards import as_text, markdown_table
from flax_distil.distillation.publishing.card_subject import CardSubject
from flax_distil.distillation.publishing.evaluation_table import EvaluatedSet
from flax_distil.distillation.publishing.run_summary import RunSummary
from flax_distil.distillation.publishing.usage import usage_sections
from flax_distil.distillation.setup.data_hours import FEWEST_HOURS
from flax_distil.text.languages import LANGUAGES

LOSS_PLOT, WER_PLOT = "learning_curve.svg", "word_error_rate.svg"
"""Files of the plots of a card."""

_SETTINGS = {
    "teacher_model_revision": "revision of the teacher", "max_steps": "updates",
    "samples_per_update": "samples per update", "learning_rate": "learning rate",
    "lr_scheduler_type": "schedule", "warmup_steps": "warm-up updates", "weight_decay": "weight decay",
    "max_grad_norm": "gradient norm limit", "ce_weight": "weight of the cross-entropy",
    "kl_weight": "weight of the KL divergence", "mse_weight": "weight of the hidden states' MSE",
    "temperature": "temperature", "freeze_encoder": "frozen encoder", "precision": "precision",
    "timestamp_probability": "share of labels with timestamps",
    "condition_on_prev_probability": "share of labels after a previous text",
    "wer_threshold": "WER threshold", "concatenate_audio": "neighbouring recordings joined", "seed": "seed",
}  # fmt: skip
"""Settings that a card lists, where the run has them."""


def card_text(subject: CardSubject, *, plots: Sequence[str] = ()) -> str:
    """Return the text of a card in Markdown.

    Args:
        subject: What the card tells.
        plots: Names of the files of plots that stand beside the card.
    """
    sections = [
        f"# {as_text(subject.title)}\n\n{_introduction(subject)}",
        _sizes(subject),
        f"## Use\n\n{usage_sections(subject.repository, subject.formats)}",
        _evaluation(subject.evaluated),
        *(() if subject.run is None else (_data(subject.run), _training(subject.run, plots))),
        _limits(subject),
        _license(subject),
        _CITATION if subject.teacher else _WHISPER,
    ]
    return "\n".join(section.rstrip() + "\n" for section in sections if section)


def _introduction(subject: CardSubject) -> str:
    model, start = subject.model, subject.starting_model
    known = f"{_layers(model['encoder_layers'], 'encoder')} and {_layers(model['decoder_layers'], 'decoder')}"
    size = f"{model['parameters'] / 1e6:.1f} M parameters"
    text = f"A Whisper model for speech recognition with {known} ({size})"
    if subject.teacher:
        text += f", distilled from {_link(subject.teacher)}"
    elif start:
        text += f", {'fine-tuned' if subject.run is not None else 'converted'} from {_link(start)}"
    names = [LANGUAGES.get(code, code).capitalize() for code in subject.languages]
    spoken = f" Language: {', '.join(names)}." if names else ""
    return f"{text} with flax-distil.{spoken}\n"


def _layers(count: int, side: str) -> str:
    return f"{count} {side} layer{'s' * (count > 1)}"


def _sizes(subject: CardSubject) -> str:
    model, teacher = subject.model, subject.teacher
    if not teacher:
        return ""
    copied = subject.run.models.get("student", {}).get("decoder_layers_of_teacher") if subject.run else None
    named = f"layer{'s' * (len(copied or ()) > 1)} {', '.join(map(str, copied or ()))}"
    began = f", begun as {named} of the teacher" if copied else ""
    return markdown_table(
        ["", "this model", "teacher"],
        [
            ["parameters", *(f"{one['parameters'] / 1e6:.1f} M" for one in (model, teacher))],
            ["encoder layers", *(str(one["encoder_layers"]) for one in (model, teacher))],
            ["decoder layers", f"{model['decoder_layers']}{began}", str(teacher["decoder_layers"])],
            ["width", *(str(one["d_model"]) for one in (model, teacher))],
            ["window", *(f"{one['window_seconds']:g} s" for one in (model, teacher))],
        ],
    )


def _evaluation(evaluated: Sequence[EvaluatedSet]) -> str:
    if not evaluated:
        return (
            "## Evaluation\n\nNo evaluation is recorded. Measure this model on speech like yours before you "
            "rely on it:\n`flax-distil eval`.\n"
        )
    rows = [
        [
            "this model" if one.model is None else as_text(one.model),
            _data_set(one.data_set, one.data_set_id),
            " / ".join(as_text(part) for part in (one.config, one.split) if part),
            f"{one.samples:,}",
            f"{one.wer:.2f}",
            "" if one.interval is None else f"{one.interval[0]:.2f} to {one.interval[1]:.2f}",
            "" if one.rtfx is None else f"{one.rtfx:.1f}",
        ]
        for one in evaluated
    ]
    head = ["model", "data set", "subset", "recordings", "WER %", "95 % interval", "RTFx"]
    kept = [column for column in range(len(head)) if any(row[column] for row in rows)]
    table = markdown_table([head[k] for k in kept], [[row[k] for k in kept] for row in rows])
    speed = "RTFx is seconds of audio transcribed per second, on the machine of the evaluation."
    note = f" {speed}" if any(one.rtfx for one in evaluated) else ""
    return f"## Evaluation\n\nWord error rates after normalization of text and transcript.{note}\n\n{table}"


def _data(run: RunSummary) -> str:
    rows = []
    for entry in run.data_sets("training"):
        counts = run.counts(entry["name"])
        kept = counts.get("kept", {})
        dropped = sum(int(count["rows"]) for reason, count in counts.items() if reason != "kept")
        rows.append(
            [
                _data_set(entry["name"], entry["id"]),
                " / ".join(as_text(part) for part in (entry["config"], entry["split"]) if part),
                f"{int(kept['rows']):,}" if kept else "",
                f"{kept['seconds'] / 3600:,.2f}" if kept.get("seconds") else "not measured",
                f"{dropped:,}" if counts else "",
                as_text(entry["license"] or "not stated"),
            ]
        )
    head = ["data set", "subset", "recordings used", "hours used", "dropped by filters", "license"]
    heard = run.hours_heard
    seen = f"\nAll updates together saw {heard or 0:,.2f} hours of audio, repetitions included.\n"
    reasons = _dropped(run)
    return f"## Training data\n\n{markdown_table(head, rows)}{seen if heard else ''}{reasons}"


def _dropped(run: RunSummary) -> str:
    totals: dict[str, int] = {}
    for entry in run.data_sets("training"):
        for reason, count in run.counts(entry["name"]).items():
            if reason != "kept":
                totals[reason] = totals.get(reason, 0) + int(count["rows"])
    if not totals:
        return ""
    listed = ", ".join(f"{as_text(reason)} ({rows:,})" for reason, rows in totals.items())
    return f"\nRecordings were dropped for these reasons: {listed}.\n"


def _training(run: RunSummary, plots: Sequence[str]) -> str:
    settings = run.settings
    shown = {name: label for name, label in _SETTINGS.items() if name != "temperature" or run.has_divergence}
    rows = [[label, _value(settings[name])] for name, label in shown.items() if _is_set(settings, name)]
    parts = [f"## Training\n\n{markdown_table(['setting', 'value'], rows)}"]
    latest = run.latest()
    terms = {"loss": "loss", "ce_loss": "cross-entropy"}
    terms |= {"kl_loss": "KL divergence"} if run.has_divergence else {}
    losses = [[label, f"{latest[name]:.4f}"] for name, label in terms.items() if name in latest]
    if losses:
        table = markdown_table(["loss", "mean over the last logged updates"], losses)
        parts.append(f"After {run.step:,} updates:\n\n{table}")
    parts += [f"![{_ALT[name]}]({name})\n" for name in plots]
    parts.append(_machine(run))
    return "\n".join(part for part in parts if part)


_ALT = {LOSS_PLOT: "Loss over steps", WER_PLOT: "Word error rate over steps"}


def _machine(run: RunSummary) -> str:
    attempts = run.record.get("attempts") or [{}]
    devices = attempts[-1].get("devices", {})
    if not devices:
        return ""
    hours = run.goodput.get("wall_seconds", 0.0) / 3600
    took = f", in {hours:,.1f} hours" if hours >= 0.1 else ""
    return f"It was trained on {devices.get('count')} × {as_text(str(devices.get('kind')))}{took}.\n"


def _limits(subject: CardSubject) -> str:
    points = [
        "Like every Whisper model it may write words that nobody said, most of all in silence and noise.",
        "It was not evaluated for any use where an error does harm.",
    ]
    if not subject.is_multilingual:
        points.append("It knows English alone.")
    elif subject.languages:
        points.append("Languages that it was not trained on are worse than those of its teacher, or lost.")
    hours = _hours(subject.run)
    if subject.teacher and hours is not None and hours < FEWEST_HOURS:
        points.append(
            f"It was trained on {hours:,.1f} hours. Published students of two decoder layers need several "
            "hundred hours to come near their teachers."
        )
    return "## Limits\n\n" + "\n".join(f"- {point}" for point in points) + "\n"


def _hours(run: RunSummary | None) -> float | None:
    """Return the hours of all training sets; None if one of them was not measured."""
    if run is None:
        return None
    seconds = [
        run.counts(entry["name"]).get("kept", {}).get("seconds") for entry in run.data_sets("training")
    ]
    return sum(seconds) / 3600 if seconds and all(seconds) else None  # type: ignore[arg-type]


def _license(subject: CardSubject) -> str:
    stated = f"`{as_text(subject.license)}`" if subject.license else "not stated by whoever published it"
    text = f"The license of this model is {stated}."
    sources = "" if subject.run is None else " Those of the training data stand in their table."
    return f"## License\n\n{text}{sources}\n"


def _link(model: Mapping[str, Any]) -> str:
    name = as_text(model["name"])
    return f"[{name}](https://huggingface.co/{model['id']})" if model.get("id") else name


def _data_set(name: str, found: str | None) -> str:
    return f"[{as_text(found)}](https://huggingface.co/datasets/{found})" if found else as_text(name)


def _is_set(settings: Mapping[str, Any], name: str) -> bool:
    return settings.get(name) not in (None, False, 0, 0.0) or (name == "seed" and name in settings)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else as_text(str(value))


_WHISPER = """## Citation

```bibtex
@misc{radford2022robust,
  title = {Robust Speech Recognition via Large-Scale Weak Supervision},
  author = {Radford, Alec and Kim, Jong Wook and Xu, Tao and Brockman, Greg and McLeavey, Christine and
            Sutskever, Ilya},
  year = {2022},
  eprint = {2212.04356},
  archivePrefix = {arXiv}
}
```
"""

_CITATION = (
    _WHISPER.rstrip().removesuffix("```")
    + """
@misc{gandhi2023distilwhisper,
  title = {Distil-Whisper: Robust Knowledge Distillation via Large-Scale Pseudo Labelling},
  author = {Gandhi, Sanchit and von Platen, Patrick and Rush, Alexander M.},
  year = {2023},
  eprint = {2311.00430},
  archivePrefix = {arXiv}
}
```
"""
)
