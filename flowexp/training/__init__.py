"""How weights are trained: random draws, optimizer, EMA, sharding, and steps that are not finite."""
