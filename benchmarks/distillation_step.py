"""One distillation step, ours against transformers: time, rate and peak memory.

    python -m benchmarks.distillation_step --model base --rounds 5 --threads 2

Both sides: float32, the same weights and batch, one shared frozen encoder that runs once without
gradients, the teacher's decoder without gradients, cross-entropy and KL at temperature 2 on every
label, clipping, AdamW. Memory is measured in a process of its own for each side.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks.machine import describe, interleave, limit_threads, matmul_peak, report
from benchmarks.memory import StepMemory

CE_WEIGHT, TEMPERATURE, LEARNING_RATE, CLIP = 0.8, 2.0, 1e-5, 1.0
SIDES = ("flax_distil", "transformers")

Step = Callable[[], float]
"""Does one update and returns its loss."""


def make_batch(args: argparse.Namespace, *, mel_bins: int, vocabulary: int) -> dict[str, Any]:
    """Return random features and labels, every label counting."""
    import numpy as np

    random = np.random.default_rng(0)
    return {
        "mel_BRM": random.normal(scale=0.5, size=(args.batch, 3000, mel_bins)).astype(np.float32),
        "inputs_BT": random.integers(0, vocabulary, (args.batch, args.labels), dtype=np.int32),
        "labels_BT": random.integers(0, vocabulary, (args.batch, args.labels), dtype=np.int32),
    }


class OurStep(NamedTuple):
    """What our distillation step is made of; the trees are on the host.

    Attributes:
        config: The static part of the step.
        optimizer: As a user has it.
        trainable: Leaves of the student that are trained.
        frozen: The others, its encoder among them.
        teacher: The teacher's decoder.
        batch: One micro-batch with features.
    """

    config: Any
    optimizer: Any
    trainable: Any
    frozen: Any
    teacher: Any
    batch: Any


def prepare_our_step(args: argparse.Namespace) -> OurStep:
    import jax.numpy as jnp

    from benchmarks.checkpoints import checkpoint_folder
    from flax_distil.checkpoints.checkpoint import load_checkpoint
    from flax_distil.checkpoints.student import init_student
    from flax_distil.data.training.batches import Batch
    from flax_distil.distillation.loss import make_terms
    from flax_distil.distillation.optimizer import make_optimizer
    from flax_distil.distillation.step_config import StepConfig
    from flax_distil.distillation.train_state import partition_params
    from flax_distil.distillation.training_config import FreezeConfig, LossConfig, OptimizerConfig
    from flax_distil.model.compute_options import ComputeOptions

    teacher = load_checkpoint(checkpoint_folder(args.model))
    student = init_student(teacher, decoder_layers=args.decoder_layers)
    options = ComputeOptions()
    config = StepConfig(
        student=student.config, teacher=teacher.config, student_options=options, teacher_options=options,
        terms=make_terms(LossConfig(ce_weight=CE_WEIGHT, kl_weight=1.0, temperature=TEMPERATURE)),
    )  # fmt: skip
    optimizer = make_optimizer(
        OptimizerConfig(
            learning_rate=LEARNING_RATE,
            warmup_steps=0,
            max_steps=1000,
            max_grad_norm=CLIP,
            lr_scheduler_type="constant_with_warmup",
        )
    )
    given = make_batch(args, mel_bins=teacher.config.num_mel_bins, vocabulary=teacher.config.vocab_size)
    batch = Batch(
        mel_BRM=jnp.asarray(given["mel_BRM"])[None],
        decoder_input_ids_BT=jnp.asarray(given["inputs_BT"])[None],
        labels_BT=jnp.asarray(given["labels_BT"])[None],
        loss_mask_BT=jnp.ones((1, args.batch, args.labels), bool),
    )
    trainable, frozen = partition_params(student.params, FreezeConfig())
    return OurStep(config, optimizer, trainable, frozen, {"decoder": teacher.params["decoder"]}, batch)


def our_step(args: argparse.Namespace) -> Step:
    import functools

    import jax

    from flax_distil.distillation.train_state import init_state
    from flax_distil.distillation.train_step import train_step

    config, optimizer, trainable, frozen, held, batch = prepare_our_step(args)
    step = jax.jit(functools.partial(train_step, config, optimizer), donate_argnums=0)
    held_state = [jax.device_put(init_state(trainable, optimizer), jax.devices()[0])]
    del trainable

    def run() -> float:
        held_state[0], metrics = step(held_state[0], frozen, held, batch)
        jax.block_until_ready(held_state[0])
        return float(metrics["loss"])

    return run


def their_step(args: argparse.Namespace) -> Step:
    import torch
    import torch.nn.functional as F
    from transformers import WhisperConfig, WhisperForConditionalGeneration
    from transformers.modeling_outputs import BaseModelOutput

    from benchmarks.checkpoints import checkpoint_folder

    torch.set_num_threads(args.threads)
    teacher = WhisperForConditionalGeneration.from_pretrained(
        checkpoint_folder(args.model), dtype=torch.float32
    ).eval()
    teacher.requires_grad_(False)
    shape = WhisperConfig(**teacher.config.to_dict() | {"decoder_layers": args.decoder_layers})
    with torch.device("meta"):
        student = WhisperForConditionalGeneration(shape)
    student.model.encoder = teacher.model.encoder  # one copy, frozen
    student.model.decoder = _copied_decoder(teacher.model.decoder, student.model.decoder)
    student.tie_weights()
    student.train()  # no dropout in Whisper's configurations
    teacher.model.encoder.eval()
    optimizer = torch.optim.AdamW(
        [leaf for leaf in student.parameters() if leaf.requires_grad], lr=LEARNING_RATE, weight_decay=0.0
    )
    given = make_batch(args, mel_bins=shape.num_mel_bins, vocabulary=shape.vocab_size)
    features = torch.tensor(given["mel_BRM"].transpose(0, 2, 1).copy())
    inputs, labels = (torch.tensor(given[name]).long() for name in ("inputs_BT", "labels_BT"))

    def run() -> float:
        with torch.no_grad():
            states = BaseModelOutput(last_hidden_state=teacher.model.encoder(features).last_hidden_state)
            taught = teacher(encoder_outputs=states, decoder_input_ids=inputs, use_cache=False).logits
        said = student(encoder_outputs=states, decoder_input_ids=inputs, use_cache=False).logits
        cross_entropy = F.cross_entropy(said.flatten(0, 1), labels.flatten())
        divergence = F.kl_div(
            F.log_softmax(said / TEMPERATURE, dim=-1),
            F.softmax(taught / TEMPERATURE, dim=-1),
            reduction="sum",
        )
        loss = CE_WEIGHT * cross_entropy + TEMPERATURE**2 * divergence / labels.numel()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return run


def _copied_decoder(teacher: Any, student: Any) -> Any:
    """Copy a teacher's decoder with layers as far apart as can be, the last among them."""
    import copy

    import numpy as np
    import torch

    chosen = np.linspace(0, len(teacher.layers) - 1, len(student.layers), dtype=int)
    chosen[-1] = len(teacher.layers) - 1
    layers, teacher.layers = teacher.layers, torch.nn.ModuleList()
    copied = copy.deepcopy(teacher)
    teacher.layers = layers
    copied.layers = torch.nn.ModuleList(copy.deepcopy(layers[index]) for index in chosen)
    copied.config = student.config
    return copied.requires_grad_(True)


BUILDERS = {"flax_distil": our_step, "transformers": their_step}


def measure_memory(args: argparse.Namespace) -> None:
    """Print the memory of one side as JSON; runs in a process of its own."""
    memory = StepMemory.after_imports(args.memory_of)
    run = BUILDERS[args.memory_of](args)
    run()  # compiles, and allocates the moments
    memory.start()
    for _ in range(2):
        run()
    print(json.dumps(memory.result()))


def memory_of(side: str, arguments: list[str]) -> dict[str, float]:
    """Measure one side in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.distillation_step", *arguments, "--memory_of", side]
    answer = subprocess.run(command, capture_output=True, text=True)
    if answer.returncode:
        raise RuntimeError(f"measuring the memory of {side} failed:\n{answer.stderr[-2000:]}")
    return json.loads(answer.stdout.splitlines()[-1])


def main(arguments: list[str]) -> None:
    args = parse(arguments)
    limit_threads(args.threads)
    if args.memory_of:
        measure_memory(args)
        return
    from benchmarks.checkpoints import checkpoint_folder
    from flax_distil.model.config import WhisperConfig
    from flax_distil.model.operations import distillation_flop

    results: dict[str, Any] = {"benchmark": "distillation step", "machine": describe(args.threads)}
    results["arguments"] = vars(args)
    print(json.dumps(results["machine"]))
    teacher = WhisperConfig.from_huggingface(
        json.loads((checkpoint_folder(args.model) / "config.json").read_text())
    )
    student = WhisperConfig(**teacher.to_huggingface() | {"decoder_layers": args.decoder_layers})
    work = distillation_flop(teacher, student, args.batch, args.labels)
    total = sum(work.values()) / 1e9
    print(
        f"{args.model}: student {student.encoder_layers}+{student.decoder_layers}, features "
        f"[{args.batch}, 3000, {teacher.num_mel_bins}], labels [{args.batch}, {args.labels}], float32, "
        f"{total:.0f} GFLOP ({', '.join(f'{name} {flop / 1e9:.0f}' for name, flop in work.items())})"
    )
    results |= {"gflop": total}
    if not args.skip_memory:
        results["memory"] = {side: memory_of(side, arguments) for side in SIDES}
    results["peak"] = matmul_peak()
    steps = {side: build(args) for side, build in BUILDERS.items()}
    losses: dict[str, list[float]] = {side: [] for side in SIDES}
    rounds = interleave(
        {side: lambda side=side, step=step: losses[side].append(step()) for side, step in steps.items()},
        rounds=args.rounds,
    )
    results["peak"] = max(results["peak"], matmul_peak())
    # The same weights, batch and formula: the first loss says so.
    first = [losses[side][0] for side in SIDES]
    if abs(first[0] - first[1]) > 1e-4 * first[1]:
        raise RuntimeError(f"the two sides do not compute the same loss: {first}")
    results["sides"] = {side: rounds.summary(side) | {"loss": losses[side]} for side in SIDES}
    show(results)
    report(results, args.json)


def show(results: dict[str, Any]) -> None:
    """Print the table."""
    print(f"matmul peak of this machine: {results['peak']:.0f} GFLOP/s (float32)")
    print(f"{'':14}{'median':>9}{'fastest':>9}{'slowest':>9}{'compile':>9}{'GFLOP/s':>9}{'peak MB':>9}")
    for side, row in results["sides"].items():
        peak = results.get("memory", {}).get(side, {}).get("peak_mb", float("nan"))
        print(
            f"{side:14}{row['seconds']:8.2f}s{row['fastest']:8.2f}s{row['slowest']:8.2f}s"
            f"{row['compile_seconds']:8.1f}s{results['gflop'] / row['seconds']:9.1f}{peak:9.0f}"
        )
    ours, theirs = (results["sides"][side]["seconds"] for side in SIDES)
    print(f"time: {ours / theirs:.2f} × transformers")
    if "memory" in results:
        ours, theirs = (results["memory"][side]["peak_mb"] for side in SIDES)
        print(f"peak memory: {ours / theirs:.2f} × transformers")


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="base", help="tiny.en, base or a checkpoint folder")
    parser.add_argument("--decoder_layers", type=int, default=2, help="of the student")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--labels", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--skip_memory", action="store_true")
    parser.add_argument("--json", help="write the results here")
    parser.add_argument("--memory_of", choices=SIDES, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
