"""Where arrays lie on devices, and how processes meet."""
