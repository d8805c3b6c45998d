"""Events: what they contain, and a stream of them for consumers."""
