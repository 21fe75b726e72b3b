"""tipl in other people's training loops: stable-baselines3 and scripts of CleanRL's style."""
