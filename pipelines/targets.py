"""This table says in which image each step runs."""

from components.approaches import APPROACHES

BASE = "base"
IMAGE_TARGETS = {
    "plan": BASE,
    "ingest": BASE,
    **{f"search-{approach.name}": approach.image for approach in APPROACHES.values()},
    **{f"train-{approach.name}": approach.image for approach in APPROACHES.values()},
    "evaluate": BASE,
    "report": BASE,
    "promote": BASE,
    "notify": BASE,
}
"""Target of `images/Dockerfile` by step, in the order in which a run starts them."""
TARGETS = tuple(dict.fromkeys(IMAGE_TARGETS.values()))
"""Targets of `images/Dockerfile`, in the order in which they are built."""
STEPS = tuple(IMAGE_TARGETS)
STEP_GROUPS = {kind: tuple(step for step in STEPS if step.startswith(f"{kind}-")) for kind in ("search", "train")}
"""What a cluster profile may call the same step of every approach."""
GPU_STEPS = (*STEP_GROUPS["search"], *STEP_GROUPS["train"])
"""Steps that get an accelerator where the cluster has one."""
