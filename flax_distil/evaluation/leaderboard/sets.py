"""The data sets of the Open ASR Leaderboard, by name.

Source: https://github.com/huggingface/open_asr_leaderboard, August 2026.
"""

import dataclasses
from collections.abc import Sequence

from flax_distil.core.errors import InputError
from flax_distil.core.nested import nearest_name

SHORT_FORM, LONG_FORM, MULTILINGUAL, ORIGINAL = "short_form", "long_form", "multilingual", "original"

BENCHMARK = "hf-audio/open-asr-leaderboard"
"""Data set on the Hub of the English short-form sets, under which models report their results."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LeaderboardSet:
    """A data set of the leaderboard.

    Attributes:
        name: Its name here.
        dataset: Hub id.
        config: Configuration, and the name of the set in manifests.
        split: Split.
        group: Table of the leaderboard that it belongs to.
        language: Whisper's code of the language.
        column: Column of that table; sets of one column count together as one.
        task: Id of its word error rate in ``.eval_results``; None if it has none.
        parent: Data set on the Hub with the references of whole recordings, of which the set holds chunks;
            None if the set has references itself.
    """

    name: str
    dataset: str
    config: str
    split: str = "test"
    group: str
    language: str = "en"
    column: str
    task: str | None = None
    parent: str | None = None

    @property
    def is_long(self) -> bool:
        """Whether recordings are longer than a window of the model."""
        return self.group == LONG_FORM

    @property
    def hub_config(self) -> str | None:
        """Configuration on the Hub; None where the data set has only one."""
        return None if self.parent is not None else self.config

    def manifest_name(self, model_id: str) -> str:
        """Return the file name of a model's manifest, by which the leaderboard's scripts know the set."""
        parts = [model_id, "DATASET", self.dataset, self.config, self.split]
        return f"MODEL_{'_'.join(part.replace('/', '-') for part in parts)}.jsonl"


def _english(config: str, task: str, *, split: str = "test", name: str | None = None) -> LeaderboardSet:
    return LeaderboardSet(
        name=name or config,
        dataset=BENCHMARK,
        config=config,
        split=split,
        group=SHORT_FORM,
        column=name or config,
        task=task,
    )


def _original(config: str) -> LeaderboardSet:
    return LeaderboardSet(name=config, dataset=BENCHMARK, config=config, group=ORIGINAL, column=config)


def _long(config: str, *, dataset: str = "hf-audio/asr-leaderboard-longform") -> LeaderboardSet:
    is_coraal = dataset == "bezzam/coraal"
    return LeaderboardSet(
        name=f"coraal_{config}" if is_coraal else f"{config}_long_form",
        dataset=dataset,
        config=config,
        group=LONG_FORM,
        column="coraal" if is_coraal else config,
    )


def _multilingual(corpus: str, language: str) -> LeaderboardSet:
    config = f"{corpus}_{language}"
    return LeaderboardSet(
        name=config,
        dataset="hf-audio/open-asr-leaderboard-multilingual-datasets",
        config=config,
        group=MULTILINGUAL,
        language=language,
        column=config,
    )


_CHUNKED_EARNINGS22 = LeaderboardSet(
    name="earnings22_cleaned_aa_chunked",
    dataset="ArtificialAnalysis/Earnings22-Cleaned-AA-chunked",
    config="earnings22_cleaned_aa_chunked",
    group=SHORT_FORM,
    column="earnings22_cleaned_aa_chunked",
    task="earnings22_wer",
    parent="ArtificialAnalysis/Earnings22-Cleaned-AA",
)

SETS = {
    data_set.name: data_set
    for data_set in (
        _english("ami_cleaned", "ami_wer"),
        _CHUNKED_EARNINGS22,
        _english("gigaspeech_cleaned", "gigaspeech_wer"),
        _english("librispeech", "librispeech_clean_wer", split="test.clean", name="librispeech_clean"),
        _english("librispeech", "librispeech_other_wer", split="test.other", name="librispeech_other"),
        _english("spgispeech", "spgispeech_wer"),
        _english("voxpopuli_cleaned_aa", "voxpopuli_wer"),
        *map(_original, ("ami", "earnings22", "gigaspeech", "voxpopuli")),
        *map(_long, ("earnings21", "earnings22")),
        *(
            _long(region, dataset="bezzam/coraal")
            for region in ("ATL", "DCA", "DCB", "DTA", "LES", "PRV", "ROC", "VLD")
        ),
        *(_multilingual("fleurs", language) for language in ("de", "es", "fr", "it", "pt")),
        *(_multilingual("mcv", language) for language in ("de", "es", "fr", "it")),
        *(_multilingual("mls", language) for language in ("es", "fr", "it", "pt")),
    )
}
"""All sets by name, in the order of the leaderboard's tables."""

GROUPS = {
    group: [name for name, data_set in SETS.items() if data_set.group == group]
    for group in (SHORT_FORM, LONG_FORM, MULTILINGUAL)
}
"""Names of the sets that the leaderboard averages."""


def find_sets(names: str) -> list[LeaderboardSet]:
    """Return the sets with these names, joined by ``+``; the name of a group stands for all of its sets.

    Raises:
        InputError: If a name is unknown.
    """
    found: dict[str, LeaderboardSet] = {}
    for name in map(str.strip, names.split("+")):
        for known in GROUPS.get(name, [name]):
            if known not in SETS:
                raise InputError(
                    f"dataset_name {name!r} is no set of the Open ASR Leaderboard"
                    f"{nearest_name(name, [*GROUPS, *SETS])}: expected {', '.join(GROUPS)}, or some of "
                    f"{', '.join(SETS)}"
                )
            found[known] = SETS[known]
    return list(found.values())


def mean_rate(rates: dict[str, float]) -> float:
    """Return the unweighted mean of the columns of some sets, given the rate of each set by name.

    Rates are rounded to two decimals first, as the leaderboard does.
    """
    columns: dict[str, list[float]] = {}
    for name, rate in rates.items():
        columns.setdefault(SETS[name].column, []).append(round(rate, 2))
    means: Sequence[float] = [sum(part) / len(part) for part in columns.values()]
    return sum(means) / len(means)
