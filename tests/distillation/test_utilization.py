"""How much of the devices' peak a run uses."""

import numpy as np
import pytest

from flax_distil.data.training.batches import Batch
from flax_distil.distillation.monitoring.utilization import Utilization
from flax_distil.model.config import WhisperConfig
from flax_distil.model.operations import StepWork
from flax_distil.parallel.peak_flops import peak_flops
from flax_distil.planning.chips import CHIPS

TOY = WhisperConfig(
    vocab_size=2000, num_mel_bins=80, d_model=128, encoder_layers=2, decoder_layers=2,
    encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=512, decoder_ffn_dim=512,
)  # fmt: skip


def batch(rows, tokens):
    return Batch(labels_BT=np.zeros((rows, tokens), np.int32))


def test_flops_of_batches_of_any_shape_are_added_and_those_of_the_backward_pass_count_once():
    work = StepWork(student=TOY, teacher=TOY, batch=1, tokens=1, recomputes=True)
    used = Utilization(work, peak=1e12, batch_shards=2)
    for shape in ((8, 64), (8, 128), (8, 64)):
        used.add(batch(*shape))
    whole = [StepWork(student=TOY, teacher=TOY, batch=16, tokens=tokens) for tokens in (64, 128, 64)]
    flop = sum(sum(step.flop().values()) for step in whole)
    assert used.take(10.0) == pytest.approx(flop / 1e13)
    assert used.take(10.0) == 0.0


def test_without_a_known_peak_there_is_no_utilization():
    used = Utilization(StepWork(student=TOY, teacher=None, batch=1, tokens=1), peak=None)
    used.add(batch(2, 16))
    assert used.take(1.0) is None


@pytest.mark.parametrize(
    ("kind", "tera"),
    [
        ("TPU v4", 275), ("TPU v5 lite", 197), ("TPU v5p", 459), ("TPU v5", 459), ("TPU v6 lite", 918),
        ("NVIDIA A100-SXM4-80GB", 312), ("NVIDIA H100 80GB HBM3", 989), ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989), ("NVIDIA A10G", 70), ("NVIDIA L4", 121), ("NVIDIA L40S", 362),
    ],
)  # fmt: skip
def test_peaks_are_found_by_what_jax_calls_a_device(kind, tera):
    assert peak_flops(kind) == tera * 1e12


def test_a_device_that_is_not_listed_has_no_peak():
    assert peak_flops("cpu") is None


def test_plans_and_runs_compare_with_the_same_peaks():
    assert CHIPS["v5e"].peak_flops == peak_flops("TPU v5 lite")
