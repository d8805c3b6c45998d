"""The scheduler: answers claim, release, explain and look-ups."""
