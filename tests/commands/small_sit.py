"""SiT of two blocks on digits, as the command line makes it: for weights that come from elsewhere."""

SMALL = (
    "backbone=sit_s2",
    "+backbone.depth=2",
    "+backbone.width=32",
    "+backbone.heads=2",
    "data=digits",
    "class_conditional=false",
)
