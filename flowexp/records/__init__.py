"""What a run leaves behind: its folder, checkpoints, measurements, tables and figures."""
