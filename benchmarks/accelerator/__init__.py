"""The accelerator check: are results right, and how fast is it, on the GPU or TPU of this machine."""
