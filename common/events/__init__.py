"""Events: what they say, and a stream of them for whoever wants to know."""
