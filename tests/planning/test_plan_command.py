"""The command as a user runs it: real step, real decoding, compiled for TPUs this machine does not have."""

import contextlib
import io
import json
import math

import pytest

from flax_distil.cli.main import main
from flax_distil.core.tree import flatten
from flax_distil.distillation.train_state import partition_params
from flax_distil.distillation.training_config import FreezeConfig
from flax_distil.model.assembly import whisper_shapes
from flax_distil.model.config import WhisperConfig

pytestmark = pytest.mark.integration

TOY = {
    "model_type": "whisper", "vocab_size": 2000, "num_mel_bins": 80, "d_model": 128, "encoder_layers": 1,
    "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 256,
    "decoder_ffn_dim": 256, "max_source_positions": 1500, "max_target_positions": 448,
}  # fmt: skip


def run(*flags, folder):
    """Return the exit code, what was printed and what was written."""
    path, printed = folder / "plan.json", io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = main([*flags, "--json", str(path)])
    return code, printed.getvalue(), json.loads(path.read_text()) if path.exists() else None


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The plan of a whole training step of tiny: about a minute, most of it the TPU compiler."""
    flags = ["distil", "--dry_run", "--teacher=openai/whisper-tiny", "--student_decoder_layers=2",
             "--topology=v4-8", "--per_device_train_batch_size=8", "--max_steps=1000", "--search_seconds=0",
             "--train_dataset_name=none", "--output_dir=none"]  # fmt: skip
    code, text, figures = run(*flags, folder=tmp_path_factory.mktemp("plan"))
    assert code == 0
    return text, figures


def test_a_published_teacher_needs_neither_weights_nor_network_and_nothing_is_written(trained, tmp_path):
    text, figures = trained
    assert "training step of a student of 4 encoder and 2 decoder layers from openai/whisper-tiny" in text
    assert (figures["topology"], figures["chips"], figures["label_length"]) == ("v4-8", 4, 128)
    assert figures["fits"] is True


def test_the_compiled_step_does_the_work_that_was_counted_but_for_attention_in_kernels(trained):
    _, figures = trained
    batch, layers, positions, tokens, width = 8, 4, 1500, 128, 384
    encoder = 4 * batch * layers * positions**2 * width
    # Of the cross-attention, the teacher's passes once, and the student's two layers three times.
    cross = 4 * batch * (layers + 2 * 3) * tokens * positions * width
    assert figures["flops_per_step_per_chip"] - figures["compiled_flops_per_step_per_chip"] == pytest.approx(
        encoder + cross, rel=1e-3
    )
    calls = {name: kernel["calls"] for name, kernel in figures["kernels"].items()}
    assert calls == {"attention_forward": layers + layers + 2, "attention_backward": 2}
    # Heads of 64 features fill half of a matrix unit, and the softmax takes as long as the products.
    peak = 2 * 8 * 128 * 128
    assert figures["kernel_seconds_from"] == "schedule"
    assert (
        2 * encoder / peak
        < figures["kernels"]["attention_forward"]["scheduled_cycles"]
        < 4 * (encoder + cross) / peak
    )


def test_moments_are_twice_the_trained_leaves_and_gradients_are_summed_once(trained):
    _, figures = trained
    student = WhisperConfig(**WhisperConfig.preset("tiny").to_huggingface() | {"decoder_layers": 2})
    trainable, _ = partition_params(whisper_shapes(student), FreezeConfig())
    size = sum(4 * math.prod(leaf.shape) for leaf in flatten(trainable).values())
    assert figures["memory"]["shares"]["moments"] == pytest.approx(2 * size, abs=64)
    assert figures["collectives"]["all-reduce"]["bytes"] == pytest.approx(size, rel=1e-3)


def test_time_and_rate_follow_from_each_other(trained):
    text, figures = trained
    assert figures["floor_seconds"] <= figures["estimated_step_seconds"]
    assert figures["samples_per_second"] * figures["estimated_step_seconds"] == pytest.approx(32)
    assert "hours for 1000 steps" in text
    assert figures["audio_hours_per_hour"] == pytest.approx(30 * figures["samples_per_second"])


def test_decoding_is_planned_by_the_token_from_a_configuration_alone(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(TOY))
    flags = ["plan", "--teacher", str(tmp_path), "--what=generate", "--topology=v5e-4", "--search_seconds=0"]
    code, text, figures = run(*flags, "--student_decoder_layers=1", folder=tmp_path)
    assert code == 0
    assert "decoding step of a student of 1 encoder and 1 decoder layers" in text
    # One query's attention to the cache of its own tokens is compiled to sums, not to a product.
    unseen = 16 * 2 * 2 * 128 * 128
    assert figures["compiled_flops_per_step_per_chip"] == figures["flops_per_step_per_chip"] - unseen
    assert figures["tokens_per_second"] * figures["estimated_step_seconds"] == pytest.approx(16 * 4)
    least, moved = (figures[f"{name}_bytes_per_step_per_chip"] for name in ("least", "compiled"))
    assert moved / least == figures["compiled_bytes_over_least"]
    assert 0 < moved < 2 * least  # most of a toy stays in the chip's own memory from step to step
    assert f"{moved / 16 / 1e6:.2f} ({moved / least:.2f} times)" in text


@pytest.mark.slow
def test_labelling_is_the_encoder_and_the_steps_of_a_batch_and_has_its_price(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(TOY))
    flags = ["plan", "--teacher", str(tmp_path), "--what=label", "--student_decoder_layers=1"]
    code, text, figures = run(*flags, "--compare=v5e-4:1.5", "--label_length=104", folder=tmp_path)
    assert code == 0
    (plan,) = figures["plans"]
    seconds = plan["encoder_seconds"] + 100 * plan["decoding_step_seconds"]
    assert plan["estimated_step_seconds"] == pytest.approx(seconds)
    assert plan["samples_per_second"] == pytest.approx(4 * 16 / seconds)
    assert plan["audio_hours_per_hour"] == pytest.approx(30 * 4 * 16 / seconds)
    assert plan["cost_per_1000_audio_hours"] == pytest.approx(1000 / plan["audio_hours_per_hour"] * 4 * 1.5)
    kernel = plan["programs"]["encoder"]["kernels"]["attention_forward"]
    assert kernel["scheduled_cycles"] > 0
    assert f"labels of {tmp_path} on v5e-4 (4 chips)" in text
    assert f"{plan['cost_per_1000_audio_hours']:.2f}" in text.splitlines()[-3]  # of the table


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--compare=v4-8,v9-8"], "topology 'v9-8' is unknown: expected one of v4-8, "),
        (
            ["--compare=v4-8:free"],
            "compare has 'free' instead of a number: expected such as v4-8:3.22,v5e-8:1.20",
        ),
        (["--label_mix=64"], "label_mix has '' instead of a number: expected such as 64:0.2,"),
        (["--label_mix=64:1", "--what=label"], "label_mix is about training steps"),
        (["--topology=v9-8"], "topology 'v9-8' is unknown: expected one of v4-8, "),
        (["--what=dance"], "what 'dance' is unknown: expected train, generate or label"),
        (["--label_length=449"], "label_length 449 is too large: the decoder has 448 positions"),
        (
            ["--label_length=4", "--what=label"],
            "label_length 4 leaves nothing to decode: 4 tokens are the prompt",
        ),
        (["--mesh=data=3"], "mesh data=3,fsdp=1,tensor=1 does not multiply to the 4 devices"),
        (["--student_decoder_layers=5"], "decoder_layers is 5: expected 1 to 4"),
    ],
)
@pytest.mark.parametrize("command", [["plan"], ["distil", "--dry_run"]])
def test_a_wrong_flag_is_one_sentence_and_exit_code_2(command, flags, sentence, capsys):
    assert main([*command, "--teacher=openai/whisper-tiny", *flags]) == 2
    assert capsys.readouterr().err.startswith(f"error: {sentence}")


def test_a_file_of_flags_may_ask_for_a_plan(tmp_path, capsys):
    path = tmp_path / "flags.yaml"
    path.write_text("dry_run: true\nteacher_model_name_or_path: openai/whisper-tiny\nmesh: data=3\n")
    needed = ["--train_dataset_name=none", f"--output_dir={tmp_path / 'out'}"]
    assert main(["distil", f"--config={path}", *needed]) == 2
    assert "does not multiply to the 4 devices" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
