"""A LightningDataModule for each dataset."""
