"""What others see of a run: its student on the Hub, and the card that describes it."""
