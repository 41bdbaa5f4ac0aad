"""What recipes make of measurements: several methods in one table, one picture, one number for each seed."""
