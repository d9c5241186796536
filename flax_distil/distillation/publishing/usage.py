"""How a model is loaded, for its card: from its repository where a format is in it, and else by an export."""

import dataclasses
import textwrap
from collections.abc import Mapping

FORMATS = ("hf", "ct2", "ggml", "onnx", "openai", "mlx")
"""Formats that a repository may hold, by the names of ``flax-distil export``."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RepositoryFormat:
    """A format in a repository.

    Attributes:
        folder: Folder of the repository that holds it; "" for the repository itself.
        file: The file of weights that is loaded by its name, within the folder; "" where a folder is loaded.
        quantization: Element type or quantization of its weights.
    """

    folder: str = ""
    file: str = ""
    quantization: str = ""


def usage_sections(repository: str, formats: Mapping[str, RepositoryFormat]) -> str:
    """Return a section in Markdown for each program that loads the model.

    Args:
        repository: Repository as ``user/name``, or the folder of a model that is not on the Hub.
        formats: The formats that are there, by name.
    """
    shown = [_WRITERS[name](repository, formats[name]) for name in FORMATS if name in formats]
    missing = [name for name in FORMATS if name not in formats]
    if missing and {"hf", "ct2"} & formats.keys():  # what an export reads
        shown.append(_export_section(repository, missing))
    return "\n".join(shown)


def _huggingface(repository: str, found: RepositoryFormat) -> str:
    where = f', subfolder="{found.folder}"' if found.folder else ""
    flags = f" --subfolder {found.folder}" if found.folder else ""
    return f"""### transformers

```python
from transformers import WhisperForConditionalGeneration, WhisperProcessor, pipeline

model = WhisperForConditionalGeneration.from_pretrained("{repository}"{where})
processor = WhisperProcessor.from_pretrained("{repository}"{where})
transcribe = pipeline(
    "automatic-speech-recognition",
    model=model,
    tokenizer=processor.tokenizer,
    feature_extractor=processor.feature_extractor,
)
print(transcribe("audio.wav")["text"])
```

### flax-distil

```bash
flax-distil transcribe audio.wav --model_name_or_path {repository}{flags}
```
"""


def _ctranslate2(repository: str, found: RepositoryFormat) -> str:
    if not found.folder:
        load = f'model = WhisperModel("{repository}")'
        imports = "from faster_whisper import WhisperModel"
    else:
        load = (
            f'folder = snapshot_download("{repository}", allow_patterns="{found.folder}/*")\n'
            f'model = WhisperModel(f"{{folder}}/{found.folder}")'
        )
        imports = "from faster_whisper import WhisperModel\nfrom huggingface_hub import snapshot_download"
    return f"""### faster-whisper

```python
{imports}

{load}
segments, _ = model.transcribe("audio.wav", condition_on_previous_text=False)
print("".join(segment.text for segment in segments))
```
"""


def _ggml(repository: str, found: RepositoryFormat) -> str:
    file = f"{found.folder}/{found.file}" if found.folder else found.file
    return f"""### whisper.cpp

```bash
hf download {repository} {file} --local-dir .
whisper-cli -m {file} -f audio.wav
```
"""


def _onnx(repository: str, found: RepositoryFormat) -> str:
    smallest = found.quantization.rpartition("+")[2]  # several lie side by side, such as fp32+q8
    dtype = f', {{ dtype: "{smallest}" }}' if smallest else ""
    return f"""### Transformers.js

```js
import {{ pipeline }} from "@huggingface/transformers";

const transcribe = await pipeline("automatic-speech-recognition", "{repository}"{dtype});
// A Float32Array of 16 kHz samples, or in a browser also the address of a recording.
console.log((await transcribe(samples)).text);
```
"""


def _openai(repository: str, found: RepositoryFormat) -> str:
    file = f"{found.folder}/{found.file}" if found.folder else found.file
    return f"""### openai-whisper

```python
import whisper
from huggingface_hub import hf_hub_download

model = whisper.load_model(hf_hub_download("{repository}", "{file}"))
print(model.transcribe("audio.wav")["text"])
```
"""


def _mlx(repository: str, found: RepositoryFormat) -> str:
    if not found.folder:
        return f"""### mlx-whisper

```python
import mlx_whisper

print(mlx_whisper.transcribe("audio.wav", path_or_hf_repo="{repository}")["text"])
```
"""
    return f"""### mlx-whisper

```python
import mlx_whisper
from huggingface_hub import snapshot_download

folder = snapshot_download("{repository}", allow_patterns="{found.folder}/*")
print(mlx_whisper.transcribe("audio.wav", path_or_hf_repo=f"{{folder}}/{found.folder}")["text"])
```
"""


_WRITERS = {
    "hf": _huggingface, "ct2": _ctranslate2, "ggml": _ggml, "onnx": _onnx, "openai": _openai, "mlx": _mlx,
}  # fmt: skip

_PROGRAMS = {
    "hf": "transformers", "ct2": "faster-whisper", "ggml": "whisper.cpp", "onnx": "Transformers.js",
    "openai": "openai-whisper", "mlx": "mlx-whisper",
}  # fmt: skip


def _export_section(repository: str, missing: list[str]) -> str:
    names = [f"{_PROGRAMS[name]} (`{name}`)" for name in missing]
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    text = f"This repository does not hold the formats for {listed}. They are made from it by"
    return f"""### Other programs

{textwrap.fill(text, 110, break_on_hyphens=False)}

```bash
flax-distil export --model_name_or_path {repository} --format {",".join(missing)} --output_dir exported
```
"""
