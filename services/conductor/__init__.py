"""The conductor: the only writer of inventory, and of a claim's life after the claim."""
