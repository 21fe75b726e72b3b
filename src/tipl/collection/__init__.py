"""From PPO trials to a dataset of policy learning paths."""
