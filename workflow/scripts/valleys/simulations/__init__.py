"""What the paper shows without a network of layers: the theorems in one dimension, and one neuron in two."""
