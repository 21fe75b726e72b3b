"""PPO for N independent trials in one batched loop."""
