"""``flax-distil pseudo-label`` under the name that users of the original know."""

from flax_distil.cli.main import script

if __name__ == "__main__":
    script("pseudo-label")
