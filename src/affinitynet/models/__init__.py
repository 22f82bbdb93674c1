"""Networks: backbones behind one contract, heads, and their weights."""
