# %% [markdown]
# # SSC on a diffusers pipeline in five lines
#
# SSC scales the velocity while sampling, from s0 at noise to s1 at data (VD eq. 10). In a pipeline of diffusers it is a scheduler. To have a pipeline that needs no
# download, a network that comes with flowexp is saved as one; for SD3 or FLUX, `from_pretrained` takes its place.

# %%
import torch

import flowexp
from flowexp.integrations.diffusers import save_pipeline

torch.set_num_threads(1)
save_pipeline(flowexp.load("zoo:fashion_fm"), "pipeline")

# %% [markdown]
# ## The five lines

# %%
from diffusers import DiffusionPipeline

from flowexp.integrations.diffusers import SSCFlowMatchEulerDiscreteScheduler as SSC

pipe = DiffusionPipeline.from_pretrained("pipeline")
pipe.scheduler = SSC.from_config(pipe.scheduler.config, s0=1.1)


# %%
def draw(s0: float):
    """Four pictures from the same noise."""
    pipe.scheduler = SSC.from_config(pipe.scheduler.config, s0=s0)
    pipe.set_progress_bar_config(disable=True)
    return pipe([0] * 4, guidance_scale=1.0, num_inference_steps=25, generator=torch.manual_seed(0)).images


import matplotlib.pyplot as plt

figure, rows = plt.subplots(2, 4, figsize=(6, 3.2))
for s0, row in zip((1.0, 1.1), rows, strict=True):
    for picture, axes in zip(draw(s0), row, strict=True):
        axes.imshow(picture, cmap="gray")
        axes.set_axis_off()
    row[0].set_title(f"s0 = {s0}", loc="left")

# %% [markdown]
# With s0 = s1 = 1 every picture is that of diffusers' own scheduler, bit for bit. [SSC elsewhere](../ssc_elsewhere.md) has the other schedulers, shifted
# grids and samplers that are not diffusers'; [what SSC can and cannot mend](../explain/ssc.md) says when to doubt it.
