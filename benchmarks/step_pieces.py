"""Where the time of our distillation step goes: each piece alone, beside the machine's matmul peak.

    python -m benchmarks.step_pieces --model base --rounds 5 --threads 2

The pieces of the step of ``benchmarks.distillation_step``, each a program of its own, and the whole step.
GFLOP/s count matrix products, without what is computed again to save memory.
"""

import argparse
import functools
import json
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.distillation_step import parse, prepare_our_step
from benchmarks.machine import describe, limit_threads, matmul_peak, report, timed


def make_pieces(args: argparse.Namespace) -> dict[str, tuple[float, Callable[[], Any]]]:
    """Return the FLOPs of each piece, and a function that dispatches it."""
    import jax

    from flax_distil.core.tree import merge
    from flax_distil.distillation.forward import encode
    from flax_distil.distillation.loss import TokenLossTerm
    from flax_distil.distillation.train_state import init_state
    from flax_distil.distillation.train_step import apply_gradients, compute_gradients, train_step
    from flax_distil.distillation.vocabulary_loss import token_losses
    from flax_distil.model.assembly import bind_decoder
    from flax_distil.model.operations import decoder_flop, distillation_flop, vocabulary_flop

    step = prepare_our_step(args)
    config, options = step.config, step.config.student_options
    trainable, frozen, teacher, batch = jax.device_put(
        (step.trainable, step.frozen, step.teacher, step.batch)
    )
    tokens_BT = batch.decoder_input_ids_BT[0]

    @jax.jit
    def run_encoder(encoder: Any) -> Any:
        return encode(config.student, options, encoder, batch.mel_BRM[0])

    def decode(shape: Any, decoder: Any, encoder_out_BSD: Any) -> Any:
        return bind_decoder(shape, options, decoder)(tokens_BT, encoder_out_BSD, None)

    @jax.jit
    def run_teacher(decoder: Any, encoder_out_BSD: Any) -> Any:
        return decode(config.teacher, decoder, encoder_out_BSD)

    @jax.jit
    def train_student(decoder: Any, encoder_out_BSD: Any, slope_BTD: Any) -> Any:
        return jax.grad(
            lambda decoder: (decode(config.student, decoder, encoder_out_BSD).hidden_BTD * slope_BTD).sum()
        )(decoder)

    @jax.jit
    def run_vocabulary(hidden_PD: Any, embedding_VD: Any, taught: Any) -> Any:
        def loss(hidden_PD: Any, embedding_VD: Any) -> Any:
            terms = tuple(term for term in config.terms.values() if isinstance(term, TokenLossTerm))
            labels_P, mask_P = batch.labels_BT.reshape(-1), batch.loss_mask_BT.reshape(-1)
            return token_losses(hidden_PD, embedding_VD, taught, labels_P, mask_P, terms=terms).total

        return jax.grad(loss, argnums=(0, 1))(hidden_PD, embedding_VD)

    states_BSD = run_encoder(frozen["encoder"])
    output = run_teacher(teacher["decoder"], states_BSD)
    taught = output.flat_hidden_PD, output.embedding_VD
    decoder = merge(trainable, frozen)["decoder"]
    gradients, metrics = jax.jit(functools.partial(compute_gradients, config))(
        trainable, frozen, teacher, batch, 0
    )
    update = jax.jit(functools.partial(apply_gradients, step.optimizer), donate_argnums=0)
    whole = jax.jit(functools.partial(train_step, config, step.optimizer), donate_argnums=0)
    held = [init_state(jax.tree.map(lambda leaf: leaf + 0, trainable), step.optimizer)]

    def replace_state(function: Callable[..., Any], *arguments: Any) -> Any:
        held[0], _ = function(held[0], *arguments)
        return held[0]

    flop = distillation_flop(config.teacher, config.student, args.batch, args.labels)
    vocabulary = vocabulary_flop(config.teacher, args.batch, args.labels)
    layers = decoder_flop(config.teacher, args.batch, args.labels) - vocabulary
    return {
        "encoder": (flop["encoder"], lambda: run_encoder(frozen["encoder"])),
        "teacher's decoder": (layers, lambda: run_teacher(teacher["decoder"], states_BSD)),
        "student's decoder, and back": (
            flop["student_decoder"] - 3 * vocabulary,
            lambda: train_student(decoder, states_BSD, output.hidden_BTD),
        ),
        "vocabulary: both, loss, back": (4 * vocabulary, lambda: run_vocabulary(*taught, taught)),
        "clipping and AdamW": (0.0, lambda: replace_state(update, gradients, metrics)),
        "whole step": (sum(flop.values()), lambda: replace_state(whole, frozen, teacher, batch)),
    }


def main(arguments: list[str]) -> None:
    args = parse(arguments)
    limit_threads(args.threads)
    import jax

    results: dict[str, Any] = {"benchmark": "pieces of a step", "machine": describe(args.threads)}
    print(json.dumps(results["machine"]))
    pieces = make_pieces(args)
    results |= {"arguments": vars(args), "peak": matmul_peak(), "pieces": {}}
    for name, (flop, run) in pieces.items():
        jax.block_until_ready(run())
        seconds = min(timed(lambda run=run: jax.block_until_ready(run())) for _ in range(args.rounds))
        results["pieces"][name] = {"gflop": flop / 1e9, "seconds": seconds}
    results["peak"] = max(results["peak"], matmul_peak())
    print(f"matmul peak of this machine: {results['peak']:.0f} GFLOP/s (float32); fastest of {args.rounds}")
    print(f"{'':30}{'GFLOP':>8}{'ms':>8}{'GFLOP/s':>9}{'ms at the peak':>16}")
    for name, row in results["pieces"].items():
        rate, least = row["gflop"] / row["seconds"], 1000 * row["gflop"] / results["peak"]
        print(f"{name:30}{row['gflop']:8.0f}{1000 * row['seconds']:8.0f}{rate:9.0f}{least:16.0f}")
    report(results, args.json)


if __name__ == "__main__":
    main(sys.argv[1:])
