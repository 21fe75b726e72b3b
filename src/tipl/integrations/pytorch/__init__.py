"""What jumps and recorders need of any PyTorch agent."""
