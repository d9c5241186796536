"""The same step and the same decoding in PyTorch's transformers, where both are installed with CUDA."""

import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks.accelerator.settings import Size


def check(size: Size) -> dict[str, Any]:
    """Return samples and windows per second of transformers in bfloat16 with the attention of PyTorch."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    results: dict[str, Any] = {"torch": torch.__version__, "device": device}
    for name, run in (("step", _step), ("decode", _decode)):
        if device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        results[name] = run(size, device)
        if device == "cuda":
            results[name]["peak_memory_bytes"] = torch.cuda.max_memory_allocated()
    return results


def _model(size: Size, device: str, decoder_layers: int | None = None) -> Any:
    import torch
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    shape = size.teacher().to_huggingface() | {"decoder_layers": decoder_layers or size.layers}
    with torch.device(device):
        return WhisperForConditionalGeneration(WhisperConfig(**shape))


def _step(size: Size, device: str) -> dict[str, Any]:
    """Time the distillation step: frozen bfloat16 encoder once, teacher's decoder, student, AdamW."""
    import torch
    import torch.nn.functional as F
    from transformers.modeling_outputs import BaseModelOutput

    teacher = _model(size, device).to(torch.bfloat16).eval().requires_grad_(False)
    student = _model(size, device, decoder_layers=2)
    student.model.encoder = teacher.model.encoder
    student.train()
    teacher.model.encoder.eval()
    trained = [leaf for leaf in student.parameters() if leaf.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.0, fused=device == "cuda")
    config = size.teacher()

    def measure(batch: int) -> dict[str, Any]:
        features = torch.randn(batch, config.num_mel_bins, 3000, device=device, dtype=torch.bfloat16)
        tokens = torch.randint(0, config.vocab_size, (2, batch, size.labels), device=device)

        def run() -> None:
            with torch.no_grad():
                states = BaseModelOutput(last_hidden_state=teacher.model.encoder(features).last_hidden_state)
                taught = teacher(encoder_outputs=states, decoder_input_ids=tokens[0], use_cache=False).logits
            with torch.autocast(device, torch.bfloat16):
                said = student(encoder_outputs=states, decoder_input_ids=tokens[0], use_cache=False).logits
            said, taught = said.float(), taught.float()
            loss = (
                0.8 * F.cross_entropy(said.flatten(0, 1), tokens[1].flatten())
                + 4.0
                * F.kl_div(
                    F.log_softmax(said / 2.0, dim=-1), F.softmax(taught / 2.0, dim=-1), reduction="sum"
                )
                / tokens[1].numel()
            )
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        seconds = _median(run, device, size.rounds)
        return {"batch": batch, "seconds": seconds, "samples_per_second": batch / seconds}

    for batch in size.train_batches:
        try:
            return measure(batch)
        except torch.cuda.OutOfMemoryError:
            optimizer.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
    return {"failed": f"no batch of {size.train_batches} fits the memory"}


def _decode(size: Size, device: str) -> dict[str, Any]:
    """Time ``generate`` of a full batch for the teacher and the student's two layers."""
    import torch

    results: dict[str, Any] = {}
    config = size.teacher()
    features = torch.randn(size.windows, config.num_mel_bins, 3000, device=device, dtype=torch.bfloat16)
    for name, layers in (("teacher", size.layers), ("student", 2)):
        model = _model(size, device, layers).to(torch.bfloat16).eval()
        settings = copy.deepcopy(model.generation_config)
        settings.update(
            max_new_tokens=size.new_tokens, min_new_tokens=size.new_tokens, do_sample=False, num_beams=1
        )

        def run(model: Any = model, settings: Any = settings) -> None:
            with torch.no_grad():
                model.generate(input_features=features, generation_config=settings)

        seconds = _median(run, device, size.rounds)
        results[name] = {"seconds": seconds, "windows_per_second": size.windows / seconds}
        del model, run
    return results


def _median(run: Callable[[], None], device: str, rounds: int) -> float:
    """Return the median seconds of a function, after one call that does not count."""
    import torch

    def once() -> float:
        start = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    once()
    return statistics.median(once() for _ in range(rounds))
