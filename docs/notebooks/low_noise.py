# %% [markdown]
# # The low-noise pathology: seen, doubted, read again
#
# LCF starts from an observation: a linear probe reads *fewer* classes off flow matching's features of nearly clean images than of somewhat
# noisier ones. Here the dip is seen with the paper's probe on a small trained network, doubted for a reason that takes one line to check, and
# read again by a probe that has converged. It takes seconds on a CPU and needs no download: the network comes with flowexp, and the images are
# scikit-learn's digits, enlarged to the size of those that it was trained on (Fashion-MNIST).

# %%
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

import flowexp

torch.set_num_threads(1)  # as fast as many for such small problems, and the same digits everywhere
model = flowexp.load("zoo:fashion_fm")
digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 8 - 1  # (1797, 1, 8, 8) in [-1, 1]
order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:1200]
images = F.interpolate(images[order], size=28, mode="bilinear", antialias=True)
labels = torch.tensor(digits.target)[order]
train, test = slice(0, 800), slice(800, None)
print(len(labels[train]), "images to fit,", len(labels[test]), "to score")

# %% [markdown]
# ## Seen
#
# `extract_features` reads the mean token of block 4 at each noise level. On these features `probe_curves` fits the paper's linear probe (LCF Table 3:
# AdamW, 15 epochs, 1e-3) and, for later, a logistic regression to convergence.

# %%
from flowexp.measuring.diagnostics import extract_features, probe_curves

levels, taps = [0.0, 0.05, 0.1, 0.2], [4]
features = extract_features(model.backbone, model.interpolant, images, levels, taps, seed=0)  # (levels, images, width)
data = features[:, train], labels[train], features[:, test], labels[test]
curves = probe_curves(*data, num_classes=10, levels=levels, taps=taps, readings=["paper", "converged"])
paper = [100 * curves["paper"].accuracy[level, 4] for level in levels]
for level, accuracy in zip(levels, paper, strict=True):
    print(f"t = {level:<4} the paper's probe reads {accuracy:.1f} %")

# %% [markdown]
# Accuracy rises with noise: there is the dip at t = 0. With 400 test images the standard error is about two points, so take the trend, not the digits.
#
# ## Doubted
#
# A probe of few epochs on features that are not normalised reads what is *large*. Does anything grow with the noise level? And has the probe converged?

# %%
for level, at_level in zip(levels, features, strict=True):
    fit = curves["paper"].fits[level, 4]
    spread = at_level.std(dim=0).mean()
    print(f"t = {level:<4} spread of the features {spread:.3f}, gradient left {fit.gradient_left:.2f}")

# %% [markdown]
# The features' spread doubles, and nearly all of the gradient is left: the probe stopped long before it had read what is there. Its curve is the curve of a scale.
#
# ## Read again
#
# Logistic regression to convergence, on the same features made of mean 0 and variance 1, and on raw pixels:

# %%
import matplotlib.pyplot as plt

from flowexp.measuring.diagnostics import fit_converged

pixels = images.flatten(1)[None]
raw = fit_converged(pixels[:, train], labels[train], pixels[:, test], labels[test], num_classes=10)
converged = [100 * curves["converged"].accuracy[level, 4] for level in levels]
figure, axes = plt.subplots(figsize=(5, 3))
axes.plot(levels, converged, "o-", label="logistic regression, converged")
axes.plot(levels, paper, "s--", label="LCF Table 3's probe, 15 epochs")
axes.axhline(100 * float(raw.accuracy[0]), color="grey", linestyle=":", label="raw pixels, converged")
axes.set(xlabel="noise level t", ylabel="test accuracy, %", ylim=(0, 100))
axes.legend()
for level, accuracy in zip(levels, converged, strict=True):
    print(f"t = {level:<4} converged {accuracy:.1f} %")
assert converged[0] >= max(converged[1:]) > max(paper)

# %% [markdown]
# No dip in this network (3,000 steps, one seed) on these digits: the features of clean images know the most. [Probes and their traps](../explain/probes.md) has the other ways in which
# a probe misleads. [The measurement on Fashion-MNIST itself](../results/dip/README.md) has three seeds and standard errors, and after 10,000 steps a dip of about a point that this probe does find.
