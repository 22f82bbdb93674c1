"""The run folder, described once: settings, stages, files, and what is up to date. No torch."""
