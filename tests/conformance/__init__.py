"""What OpenStack Nova answers to the same questions."""
