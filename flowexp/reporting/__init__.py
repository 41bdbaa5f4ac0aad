"""What a run has found, for people: a static page of its folder, and a W&B workspace defined in code."""
