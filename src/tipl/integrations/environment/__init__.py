"""Other people's environments: what a training run acts in, and another one like it for tests."""
