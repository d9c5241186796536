"""How arrays are placed on devices, and how processes find each other."""
