"""Take a running Nova over: read its cell, decide what to make of it, and make it."""
