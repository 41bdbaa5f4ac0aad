# %% [markdown]
# # A new objective in one file
#
# An objective is a class with a `losses` method. This one regresses the velocity with a pseudo-Huber error, which outliers move less than a squared one.

# %%
from flowexp.objectives import FlowMatching, StepLosses, TrainingBatch


class PseudoHuberFlow(FlowMatching):
    """Regresses the velocity by sqrt(e + c^2) - c, with e the mean squared error of a row."""

    objective = "huber"

    def __init__(self, *, c: float = 0.1, **parts) -> None:
        super().__init__(**parts)
        self.c = c

    def losses(self, batch: TrainingBatch) -> StepLosses:
        step = self.forward_step(batch)  # x_t, the network's output and its target
        error = self.error(step)  # (B,)
        huber = (error + self.c**2).sqrt() - self.c
        return self.total(step, error, {"velocity": (1.0, huber.mean())})


# %% [markdown]
# `total` adds the loss terms that a run chooses (`terms=`) and what is logged. Everything else, from networks and EMA to samplers and diagnostics, works with it.
#
# ## Train it beside flow matching
#
# Same network, same data, same random draws: both see the same noise in the same order.

# %%
import logging
import warnings

import pytorch_lightning as pl
import torch

from flowexp.backbones import create_backbone
from flowexp.data import Digits

logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="pytorch_lightning")
torch.set_num_threads(1)


def train(objective, steps=150, **keys):
    torch.manual_seed(0)
    network = create_backbone("dit_nano2", resolution=8, channels=1, width=32, depth=3, heads=2)
    optimizer = lambda parameters: torch.optim.AdamW(parameters, lr=2e-3)
    module = objective(backbone=network, optimizer=optimizer, **keys)
    trainer = pl.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(module, datamodule=Digits(batch_size=64))
    return module.eval()


modules = {"FM": train(FlowMatching), "Huber": train(PseudoHuberFlow, c=0.1)}

# %% [markdown]
# ## Compare them
#
# The squared error by noise level on held-out digits: the loss of one objective is no yardstick for the other, the error is one for both.

# %%
from flowexp.data import to_float
from flowexp.flow.interpolants import Linear
from flowexp.measuring.diagnostics import loss_by_noise_level

_, held_out = Digits().load()
images, levels = to_float(held_out.images), [0.1, 0.5, 0.9]
for name, module in modules.items():
    with module.averaged():  # the EMA weights
        found = loss_by_noise_level(module.backbone, Linear(), images, levels, seed=0)
    print(f"{name}: " + ", ".join(f"{at_level.loss:.2f} at t = {t}" for t, at_level in found.items()))

# %% [markdown]
# After 150 steps neither is trained: this shows the way, not a result. For a result, give the file to the command line, where sweeps, seeds, reports and
# protocol cards are. `docs/new_idea/huber.py` is this class, and its folder is named by `parts=`:
#
# ```
# python -m flowexp.train -m parts=docs/new_idea objective=huber objective.c=0.05,0.1,0.2
# ```
#
# [A new idea is one file](../new_idea/README.md) has networks, terms, datasets, optimizers, loggers and figures, too.
