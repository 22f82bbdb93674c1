"""Choose the settings of the walk again from what a run keeps, in minutes."""
