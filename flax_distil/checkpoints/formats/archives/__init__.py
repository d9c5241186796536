"""Files of tensors that are read by their index: those of torch.save and of Flax."""
