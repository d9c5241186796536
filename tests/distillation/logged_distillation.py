"""``run_distillation.py`` that also writes which samples each batch of this process has."""

import json
import os
import sys
from pathlib import Path

from flax_distil.cli.main import main
from flax_distil.data.training.pipeline import TrainingPipeline

if __name__ == "__main__":
    following = TrainingPipeline.__next__

    def logged(pipeline: TrainingPipeline):
        batch = following(pipeline)
        with Path(os.environ["SAMPLES_FILE"]).open("a") as file:
            file.write(json.dumps(batch.ids) + "\n")
        return batch

    TrainingPipeline.__next__ = logged
    sys.exit(main(["distil", *sys.argv[1:]]))
