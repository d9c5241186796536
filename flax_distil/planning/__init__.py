"""What a job would need of a TPU and how fast it could go, from compiling it ahead of time."""

from flax_distil.planning.hlo import ProgramCosts, program_costs
from flax_distil.planning.memory import bytes_per_chip
from flax_distil.planning.operations import StepWork, decode_step_bytes, decode_step_flop
from flax_distil.planning.plan import Job, Plan, make_plan
from flax_distil.planning.report import JobDescription, plan_as_json, plan_as_text
from flax_distil.planning.topologies import TOPOLOGIES, Topology, check_topology, open_topology

__all__ = [
    "TOPOLOGIES",
    "Job",
    "JobDescription",
    "Plan",
    "ProgramCosts",
    "StepWork",
    "Topology",
    "bytes_per_chip",
    "check_topology",
    "decode_step_bytes",
    "decode_step_flop",
    "make_plan",
    "open_topology",
    "plan_as_json",
    "plan_as_text",
    "program_costs",
]
