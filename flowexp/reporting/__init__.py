"""The results of a run, for people: a static page of its folder, and a W&B workspace defined in code."""
