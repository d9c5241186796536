"""docs/migration.md names every option of the peers, and only flags that exist here."""

import ast
import dataclasses
import importlib.util
import re
from pathlib import Path

import pytest

from flax_distil.cli.main import config_class
from flax_distil.core.nested import leaves

PAGE = (Path(__file__).parents[2] / "docs" / "migration.md").read_text(encoding="utf-8")

PSEUDO_LABELING = """
    model_name_or_path config_name tokenizer_name feature_extractor_name processor_name cache_dir
    use_fast_tokenizer model_revision subfolder token dtype attn_implementation attn_type
    compile_encoder dataset_name dataset_config_name dataset_cache_dir overwrite_cache
    preprocessing_num_workers preprocessing_batch_size audio_column_name text_column_name id_column_name
    speaker_id_column_name max_duration_in_seconds max_label_length concatenate_audio preprocessing_only
    dataset_split_name data_split_name wandb_project streaming max_samples_per_split return_timestamps
    language task decode_token_ids private_dataset
"""
DISTILLATION = """
    model_name_or_path teacher_model_name_or_path config_name tokenizer_name feature_extractor_name
    cache_dir use_fast_tokenizer model_revision subfolder token use_auth_token attn_implementation dtype
    load_with_scan_weights activation_dropout attention_dropout dropout train_dataset_name
    train_dataset_config_name train_dataset_samples eval_dataset_name eval_dataset_config_name
    dataset_cache_dir overwrite_cache preprocessing_num_workers preprocessing_batch_size
    max_train_samples max_eval_samples audio_column_name text_column_name train_text_column_name
    eval_text_column_name max_duration_in_seconds min_duration_in_seconds max_label_length
    pad_target_to_multiple_of preprocessing_only train_split_name eval_split_name streaming
    wer_threshold use_pseudo_labels prefetch_size timestamp_probability condition_on_prev_probability
    return_timestamps round_timestamps language task wandb_project wandb_name wandb_job_type wandb_dir
    save_code_to_wandb use_scan freeze_encoder freeze_decoder freeze_embed_positions temperature
    kl_weight mse_weight precision compilation_cache save_train_state save_best_total_limit
"""
STUDENT = """
    teacher_checkpoint subfolder encoder_layers decoder_layers decoder_layers_numbers
    max_source_positions save_dir push_to_hub cache_dir
"""
EVALUATION = """
    dataset_name model_name_or_path subfolder model_variant cache_dir assistant_model_name_or_path dtype
    use_pipeline chunk_length_s return_timestamps language task attn_implementation batch_size num_beams
    temperature_fallback logprob_threshold no_speech_threshold compression_ratio_threshold
    condition_on_prev_tokens samples_per_dataset dataset_config_name dataset_split_name
    dataset_cache_dir overwrite_cache preprocessing_num_workers audio_column_name text_column_name
    generation_max_length log_predictions preprocessing_only wandb_project wandb_name wandb_job_type
    wandb_dir save_code_to_wandb streaming max_eval_samples seed use_fast_tokenizer prompt_text
    precise_tok_per_s num_tokens num_batches only_short_form only_long_form config_name tokenizer_name
    feature_extractor_name processor_name model_revision use_auth_token load_with_scan
    max_duration_in_seconds min_duration_in_seconds max_label_length pad_target_to_multiple_of log_audio
"""
OTHER_EVALUATION = """
    length_penalty do_sample top_k temperature compilation_cache ngram_degree use_fp16 use_torch_compile
    use_orig_whisper use_bf16 attn_type max_gen_length
"""
OLDER_ARGUMENTS = """
    evaluation_strategy warmup_ratio overwrite_output_dir per_gpu_train_batch_size per_gpu_eval_batch_size
    push_to_hub_model_id push_to_hub_organization push_to_hub_token fp16_backend half_precision_backend
    fp16_opt_level logging_dir adafactor group_by_length save_safetensors
"""


@dataclasses.dataclass(frozen=True)
class Row:
    theirs: tuple[str, ...]
    ours: str
    note: str


def rows(heading: str) -> list[Row]:
    """Return the table below a heading, up to the next heading."""
    section = re.split(rf"^#+ {re.escape(heading)}$", PAGE, maxsplit=1, flags=re.MULTILINE)[1]
    section = re.split(r"^#+ ", section, maxsplit=1, flags=re.MULTILINE)[0]
    cells = [re.split(r" ?\| ?", line)[1:-1] for line in section.splitlines() if line.startswith("| `")]
    return [Row(tuple(re.findall(r"`(\w+)`", theirs)), ours, note) for theirs, ours, note in cells]


def our_flags(command: str) -> set[str]:
    return {leaf.name for leaf in leaves(config_class(command))}


def source(module: str, file: str) -> ast.Module:
    """Parse a file of an installed package, without importing it."""
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return ast.parse((Path(spec.origin).parent / file).read_text(encoding="utf-8"))


def training_arguments() -> set[str]:
    files = ("training_args.py", "training_args_seq2seq.py")
    classes = [
        node
        for file in files
        for node in source("transformers", file).body
        if isinstance(node, ast.ClassDef) and node.name.endswith("TrainingArguments")
    ]
    found = {
        entry.target.id
        for node in classes
        for entry in node.body
        if isinstance(entry, ast.AnnAssign) and isinstance(entry.target, ast.Name)
    }
    return {name for name in found if not name.startswith("_")}


def openai_whisper_flags() -> set[str]:
    calls = [node for node in ast.walk(source("whisper", "transcribe.py")) if isinstance(node, ast.Call)]
    arguments = [call.args[0] for call in calls if getattr(call.func, "attr", "") == "add_argument"]
    return {node.value.removeprefix("--") for node in arguments if isinstance(node, ast.Constant)}


def faster_whisper_options() -> set[str]:
    options: set[str] = set()
    for node in source("faster_whisper", "transcribe.py").body:
        if isinstance(node, ast.ClassDef) and node.name in ("WhisperModel", "BatchedInferencePipeline"):
            methods = [entry for entry in node.body if isinstance(entry, ast.FunctionDef)]
            for method in methods:
                if method.name in ("__init__", "transcribe"):
                    options |= {argument.arg for argument in method.args.args}
    return options - {"self", "model", "model_kwargs"}


TABLES = {
    "`run_pseudo_labelling.py` of Distil-Whisper": ("pseudo-label", lambda: set(PSEUDO_LABELING.split())),
    "`run_distillation.py` of Distil-Whisper": ("distil", lambda: set(DISTILLATION.split())),
    "`Seq2SeqTrainingArguments` of transformers": ("distil", training_arguments),
    "Arguments of older releases of transformers": ("distil", lambda: set(OLDER_ARGUMENTS.split())),
    "`create_student_model.py` of Distil-Whisper": ("init-student", lambda: set(STUDENT.split())),
    "`run_eval.py` of Distil-Whisper": ("eval", lambda: set(EVALUATION.split())),
    "`run_long_form_transcription.py` and `run_speed_pt.py`": ("eval", lambda: set(OTHER_EVALUATION.split())),
    "`whisper` of openai/whisper": ("transcribe", openai_whisper_flags),
    "faster-whisper": ("transcribe", faster_whisper_options),
}


@pytest.mark.parametrize("heading", TABLES)
def test_every_option_of_a_peer_has_a_row_and_every_flag_named_here_exists(heading):
    command, theirs = TABLES[heading]
    found = rows(heading)
    named = [name for row in found for name in row.theirs]
    assert len(set(named)) == len(named)
    assert theirs() - set(named) == set()
    ours = our_flags(command)
    for row in found:
        flags = re.findall(r"`(?:--)?(\w+)`", row.ours)
        if flags:
            assert set(flags) <= ours, f"{command} has no flag {sorted(set(flags) - ours)}"
        else:
            assert row.ours == "—", row
            assert row.note, f"{row.theirs}: say why there is no such flag"
            same = set(row.theirs) & ours - {"files"}  # which are recordings here, and a model's there
            assert not same, f"there is a flag {same}"
