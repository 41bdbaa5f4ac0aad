"""From a config to the objects that it names, and to the plan of a run; needs torch."""
