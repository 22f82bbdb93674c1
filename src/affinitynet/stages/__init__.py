"""One file a stage: the only code that sees both files and tensors."""
