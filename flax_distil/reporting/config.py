"""Configuration of the command ``report``."""

import dataclasses

from flax_distil.core.errors import InputError
from flax_distil.storage.paths import AnyPath, output_path

REPORT_NAME = "report.html"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Make one HTML page of a training run, finished or not; it loads nothing and runs no script.

    Attributes:
        run_dir: The output_dir of a distillation, here or in a bucket (gs://bucket/folder).
        output: File to write, here or in a bucket; by default report.html in the folder of the run.

    Raises:
        InputError: If a name is an address of another kind, or the file is no page.
    """

    run_dir: str
    output: str | None = None

    def __post_init__(self) -> None:
        _ = self.folder, self.target
        if self.output is not None and not self.output.endswith((".html", ".htm")):
            raise InputError(f"output {self.output!r} is no name of a page: let it end with .html")

    @property
    def folder(self) -> AnyPath:
        """``run_dir`` as an absolute path, or as an address in a bucket."""
        return output_path(self.run_dir, flag="run_dir")

    @property
    def target(self) -> AnyPath:
        """The file to write."""
        return self.folder / REPORT_NAME if self.output is None else output_path(self.output, flag="output")
