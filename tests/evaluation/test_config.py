"""What an evaluation cannot do is said in one sentence, before anything is opened."""

import pytest

from flax_distil.cli.main import main
from flax_distil.core.errors import InputError
from flax_distil.core.nested import build
from flax_distil.evaluation.config import EvalConfig

WRONG = [
    (["--mode=long"], "mode 'long' is unknown: expected one of short"),
    (["--baseline_model=c"], "baseline_model 'c' is not among the models: name one of a, b"),
    (["--noise_types=pink", "--snr_db=10"], "noise_types 'pink' is unknown: expected white,"),
    (["--noise_types=white"], "noise_types and snr_db go together"),
    (["--snr_db=10"], "noise_types and snr_db go together"),
    (["--noise_types=white", "--snr_db=loud"], "--snr_db cannot be 'loud': expected a number"),
    (["--noise_types=white", "--snr_db=.inf"], "--snr_db cannot be '.inf': expected a number"),
    (["--noise_types=recorded", "--snr_db=10"], "noise_types recorded and noise_dataset_name go together"),
    (["--noise_dataset_name=noise"], "noise_types recorded and noise_dataset_name go together"),
    (["--vad=auto"], "vad is for mode sequential, and this one is short: leave vad out"),
    (["--condition_on_prev_tokens", "--mode=chunked"], "condition_on_prev_tokens is for mode seq"),
    (["--vad=ears", "--mode=sequential"], "vad 'ears' is unknown: expected one of auto,"),
    (["--protocol=esb"], "protocol 'esb' is unknown: expected whisper or open_asr_leaderboard"),
    (["--scorer=."], "scorer is for protocol open_asr_leaderboard: set that"),
    (["--protocol=open_asr_leaderboard"], "dataset_name 'd' is no set of the Open ASR Leaderboard"),
    (
        ["--protocol=open_asr_leaderboard", "--dataset_name=ami_cleaned", "--mode=chunked"],
        "mode is given, and protocol open_asr_leaderboard has its own, or none: leave mode out",
    ),
    (
        ["--protocol=open_asr_leaderboard", "--dataset_name=ami_cleaned", "--num_beams=5"],
        "num_beams is given, and protocol open_asr_leaderboard decodes greedily",
    ),
    (["--fail_if=wer is high"], "fail_if 'wer is high' is no condition: expected a figure, >"),
    (["--fail_if=werr > 3"], "fail_if 'werr > 3' is about an unknown figure, did you mean wer?"),
    (["--latency_samples=-1"], "latency_samples -1 is below 1"),
]


@pytest.mark.parametrize(("flags", "sentence"), WRONG)
def test_a_wrong_flag_is_one_sentence(flags, sentence, capsys):
    assert main(["eval", "--model=./a+./b", "--dataset_name=d", *flags]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: {sentence}")
    assert shown.count("\n") == 1


def config(models: str, **settings) -> EvalConfig:
    return build(EvalConfig, model_name_or_path=models, dataset_name="d", **settings)


def test_models_are_called_by_the_last_part_of_their_names_where_that_is_unique():
    assert config("openai/whisper-tiny + ./students/two").models == {
        "whisper-tiny": "openai/whisper-tiny", "two": "./students/two",
    }  # fmt: skip
    assert list(config("a/student+b/student+c").models) == ["a/student", "b/student", "c"]


def test_a_folder_with_a_plus_in_its_name_is_one_model(tmp_path):
    folder = tmp_path / "a+b"
    folder.mkdir()
    assert config(str(folder)).models == {"a+b": str(folder)}


@pytest.mark.parametrize(("models", "what"), [("a+a", "names 'a' twice"), ("a+", "has an empty name")])
def test_a_model_is_named_once(models, what):
    with pytest.raises(InputError, match=what):
        config(models)


def test_the_baseline_is_the_first_model_or_one_of_them_by_either_name():
    assert config("x/a+y/b").baseline == "a"
    assert config("x/a+y/b", baseline_model="b").baseline == "b"
    assert config("x/a+y/b", baseline_model="y/b").baseline == "b"


def test_what_is_no_speech_is_left_out_where_asked():
    assert config("a", mode="sequential", vad="energy").options.vad == "energy"
    assert config("a", mode="sequential").options.vad is None


def test_conditions_begin_in_quiet_and_get_louder():
    noisy = config("a", noise_types=["white", "babble"], snr_db=[-5.0, 10.0, 10.0])
    assert [condition.name for condition in noisy.conditions] == [
        "clean",
        "white 10 dB",
        "white -5 dB",
        "babble 10 dB",
        "babble -5 dB",
    ]
