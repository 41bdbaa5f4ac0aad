"""The mathematics of flow matching; needs torch alone."""
